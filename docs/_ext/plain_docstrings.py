"""Reads docstrings and the help of commands, which are plain text with names in backticks, as reStructuredText."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

#: Text between as many backticks on both sides, or a character that would be markup.
_LITERAL_OR_MARK = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|[*_|\\]", re.DOTALL)


def escaped(lines: list[str]) -> list[str]:
    """Lines in which only backticks have a meaning: `a*b*` and name_ are no markup, ``a*b*`` is a literal."""
    found = _LITERAL_OR_MARK.sub(lambda match: match[0] if match[1] else f"\\{match[0]}", "\n".join(lines))
    return found.split("\n")


def escape_docstring(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Handles autodoc's event for a docstring."""
    lines[:] = escaped(lines)


def escape_help(app: Sphinx, context: object, lines: list[str]) -> None:
    """Handles sphinx-click's event for the help of a command."""
    lines[:] = escaped(lines)


def escape_options(app: Sphinx, context: object, lines: list[str]) -> None:
    """Handles sphinx-click's event for the options of a command, whose lines with directives stay."""
    lines[:] = [line if line.startswith("..") else escaped([line])[0] for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls when it loads this extension."""
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)  # before napoleon adds markup
    app.connect("sphinx-click-process-description", escape_help)
    app.connect("sphinx-click-process-options", escape_options)
    return {"parallel_read_safe": True}
