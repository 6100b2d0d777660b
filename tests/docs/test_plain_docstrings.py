"""Docstrings in plain text are shown as they are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="sphinx, which builds the documentation, is missing")
sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "_ext"))

from component_options import text
from plain_docstrings import escaped


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a*b and name_ or |x|", "a\\*b and name\\_ or \\|x\\|"),
        ("the name `a*b_`, and c_", "the name `a*b_`, and c\\_"),
        ("a literal ``a*b_``, and c_", "a literal ``a*b_``, and c\\_"),
        ("a literal ``with ` in_it``, and c_", "a literal ``with ` in_it``, and c\\_"),
        ("one `name_\nover lines` and c_", "one `name_\nover lines` and c\\_"),
        ("no end ` of_it", "no end ` of\\_it"),
    ],
)
def test_only_what_is_outside_of_backticks_is_escaped(written, read):
    assert escaped(written.split("\n")) == read.split("\n")


@pytest.mark.parametrize("mark", ["`", "``"])
def test_names_in_backticks_are_literals(mark):
    nodes = list(text(f"the {mark}tokenizer{mark} of it"))
    assert [(type(node).__name__, node.astext()) for node in nodes] == [
        ("Text", "the "), ("literal", "tokenizer"), ("Text", " of it"),
    ]  # fmt: skip
