"""Reads docstrings and the help of commands, which are plain text with names in backticks, as reStructuredText."""

from __future__ import annotations

import re

from sphinx.application import Sphinx


def escaped(lines: list[str]) -> list[str]:
    """Lines in which only backticks have a meaning: `a*b*` and name_ are no markup."""
    parts = "\n".join(lines).split("`")
    parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", outside) for outside in parts[::2]]
    return "`".join(parts).split("\n")


def escape_docstring(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    lines[:] = escaped(lines)


def escape_help(app: Sphinx, context: object, lines: list[str]) -> None:
    lines[:] = escaped(lines)


def escape_options(app: Sphinx, context: object, lines: list[str]) -> None:
    lines[:] = [line if line.startswith("..") else escaped([line])[0] for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)  # before napoleon adds markup
    app.connect("sphinx-click-process-description", escape_help)
    app.connect("sphinx-click-process-options", escape_options)
    return {"parallel_read_safe": True}
