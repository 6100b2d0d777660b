"""Writes the table of published files in README.md from the lists of the plugins: python docs/published_models.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from robustok_core import load_registry
from robustok_toolkit.published_files import NO_IMPORTER, PublishedFile, published_files

README = Path(__file__).resolve().parents[1] / "README.md"
_BEGIN, _END = "<!-- published files: python docs/published_models.py -->\n", "<!-- end -->\n"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    README.write_text(with_table(text), encoding="utf-8")


def with_table(text: str) -> str:
    """The text of the README with the table as it should be."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{table()}{_END}{after}"


def table() -> str:
    """A line for each system that can be loaded."""
    files = [file for file in published_files(load_registry()) if file.importer != NO_IMPORTER]
    lines = ["| files of | importer | files | parameters | licence of the code |", "|---|---|---|---|---|"]
    for system, group in itertools.groupby(files, lambda file: file.system):
        of_system = list(group)
        cells = [system, f"`{of_system[0].importer}`", ", ".join(_names(of_system)), _sizes(of_system)]
        lines.append(f"| {' | '.join([*cells, of_system[0].licence])} |")
    return "\n".join(lines) + "\n"


def _names(files: Iterable[PublishedFile]) -> list[str]:
    return list(dict.fromkeys(f"`{_name(file)}`" for file in files))


def _name(file: PublishedFile) -> str:
    """The name of a file, with the folders in its repository; of model.safetensors, that of its repository."""
    _, _, inside = file.place.removeprefix("hf://").partition("/") if file.place.startswith("hf://") else ("", "", "")
    repository, _, path = inside.partition("/")
    return repository if path == "model.safetensors" else path or file.name


def _sizes(files: Iterable[PublishedFile]) -> str:
    known = list(dict.fromkeys(f"{file.parameters:,}" for file in files if file.parameters is not None))
    return f"{' / '.join(known)} M" if known else "unknown"


if __name__ == "__main__":
    main()
