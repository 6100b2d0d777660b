"""Puts each page of docs/ that the index does not name where the index says `(other pages)`."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx


def name_others(app: Sphinx, page: str, source: list[str]) -> None:
    """Changes the text of the index, before Sphinx reads it, to name the pages that it does not name."""
    if page != app.config.root_doc:
        return
    named = set(source[0].split())
    others = sorted(file.stem for file in Path(app.srcdir).glob("*.md") if file.stem not in {*named, page})
    source[0] = source[0].replace("(other pages)", "\n".join(others))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls when it loads this extension."""
    app.connect("source-read", name_others)
    return {"parallel_read_safe": True}
