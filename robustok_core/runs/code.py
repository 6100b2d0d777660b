"""Which code a stage is made with: the packages of its components, their versions, and a hash of their source."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustok_core import __version__
from robustok_core.errors import RunError
from robustok_core.recipe.registry import Registry
from robustok_core.runs.run_record import read_run
from robustok_core.values.spec import all_specs

OWN = "robustok"
#: The version whose fingerprints name no version of robustok, so that those of earlier runs stay as they are.
_UNNAMED = "0.1.0"

#: The code of a stage: {distribution: {"version": ..., "source": ...}}; robustok's own has no "source".
Code = Mapping[str, Mapping[str, str]]


def code_of(values: Iterable[Any], registry: Registry) -> dict[str, dict[str, str]]:
    """The distributions that provide the components in these specs and configurations, nested ones included."""
    packages: dict[str, set[str]] = {}
    for spec in all_specs(list(values)):
        package = _package(spec.factory.__module__)
        distribution = registry.distribution(spec)
        packages.setdefault(package if distribution == "?" else distribution, set()).add(package)
    found = {}
    for distribution, names in sorted(packages.items()):
        if distribution == OWN:
            found[distribution] = {"version": __version__}
        else:
            found[distribution] = {"version": _version(distribution), "source": _source_hash(sorted(names))}
    return found


def shaping_code(code: Code) -> dict[str, str]:
    """What of the code is part of a fingerprint: the source of plugins, and robustok's version."""
    found = {name: about.get("source") or about["version"] for name, about in code.items()}
    return {name: text for name, text in found.items() if (name, text) != (OWN, _UNNAMED)}


def differences(old: Code, new: Code) -> list[str]:
    """The distributions that differ, in words."""
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return [f"{name} ({code_text(old.get(name))} -> {code_text(new.get(name))})" for name in names]


def code_text(about: Mapping[str, str] | None) -> str:
    """A distribution's version and the beginning of its hash: "0.1.0, source 1f00ba5e"."""
    if about is None:
        return "not used"
    return about["version"] + (f", source {about['source'][:8]}" if "source" in about else "")


def recorded_code(entry: Mapping[str, Any]) -> Code | None:
    """The code of the last attempt at a stage, from its entry in run.json; None if an earlier version ran it."""
    for made in reversed(entry.get("made_with", [])):
        return made.get("plugins")
    return None


def code_of_run(run: Path) -> dict[str, str]:
    """The distributions with which a run's current results were made, and what of each; {} if that is not recorded.

    The same where run.json is damaged; `robustok verify` says so.
    """
    try:
        record = read_run(run)
    except RunError:
        return {}
    found: dict[str, dict[str, None]] = {}
    for stage, fingerprint in record.get("current", {}).items():
        for name, about in (recorded_code(record["stages"].get(f"{stage}-{fingerprint}", {})) or {}).items():
            found.setdefault(name, {})[code_text(about)] = None
    return {name: " and ".join(texts) for name, texts in found.items()}


def finished_with_other_code(
    record: Mapping[str, Any], stage: str, without_code: Sequence[str]
) -> list[tuple[str, Any]]:
    """The finished stages of this name that may differ in their code only, with their fingerprints; newest first.

    `without_code` holds the fingerprints that the stage would have without code, in this version and earlier ones.
    """
    found = [
        (key.removeprefix(f"{stage}-"), entry)
        for key, entry in record["stages"].items()
        if entry["state"] == "done"
        and key.startswith(f"{stage}-")
        # earlier versions recorded no code, and their fingerprints covered none
        and (key.removeprefix(f"{stage}-") in without_code or entry.get("without_code") in without_code)
    ]
    return sorted(found, key=lambda pair: pair[1].get("finished") or "", reverse=True)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "?"


def _package(module: str) -> str:
    """The outermost package with an __init__.py, or the module itself; a namespace package is only a folder."""
    parts = module.split(".")
    names = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return next((name for name in names if getattr(sys.modules.get(name), "__file__", None)), module)


def _source_hash(packages: Iterable[str]) -> str:
    """A hash of the Python files of packages; where they lie does not matter."""
    digest = hashlib.sha256()
    for package in packages:
        for name, file in _sources(package):
            content = file.read_bytes()
            digest.update(f"{package}/{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def _sources(package: str) -> list[tuple[str, Path]]:
    location = getattr(sys.modules.get(package), "__file__", None)
    if not location:  # defined in an interactive session
        return []
    file = Path(location)
    if file.name != "__init__.py":
        return [(file.name, file)]
    names = sorted(source.relative_to(file.parent).as_posix() for source in file.parent.rglob("*.py"))
    # Editors lock a file that is open by a hidden link to nowhere.
    sources = [(name, file.parent / name) for name in names if not any(part[0] == "." for part in name.split("/"))]
    return [(name, source) for name, source in sources if source.is_file()]
