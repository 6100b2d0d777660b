"""What a component costs somebody else: lines of code of the example package, by one rule.

A line counts that is no blank line, comment, docstring or import; a statement that is written over several lines counts
as often. Formatting is ruff's, at 120 characters. To a component's file come the three lines that register it.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest
import tomli

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "third_party_plugin"
PACKAGE = EXAMPLE / "robustok_example"
#: The hook's decorator, its first line, and the call.
REGISTRATION = 3
#: A command's line in pyproject.toml.
ENTRY_POINT = 1


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that count."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            left_out |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = (t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in nothing)
    return {line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - left_out


def test_the_rule_counts_code_and_nothing_else():
    source = '"""Doc."""\nimport a\n\n\nclass B:  # why\n    """Doc\n    of two."""\n\n    # note\n'
    assert code_lines(source + "    x = [\n        1,\n    ]\n") == {5, 10, 11, 12}


@pytest.mark.parametrize(
    ("kind", "file", "most"),
    [
        ("perturbation", "drop.py", 17),
        ("tokenizer", "patches.py", 30),
        ("generator", "by_place.py", 26),
        ("metric", "mae.py", 20),
        ("stage", "train_probe.py", 50),
    ],
)
def test_a_component_costs_no_more_than(kind, file, most):
    source = (PACKAGE / file).read_text(encoding="utf-8")
    assert len(code_lines(source)) + REGISTRATION <= most
    assert f'register("{kind}", "{Path(file).stem}"' in (PACKAGE / "plugin.py").read_text(encoding="utf-8")


def test_a_command_costs_no_more_than_15_lines():
    assert len(code_lines((PACKAGE / "redraw.py").read_text(encoding="utf-8"))) + ENTRY_POINT <= 15
    points = tomli.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert points["robustok.commands"] == {"redraw": "robustok_example.redraw:redraw"}


def test_the_table_for_contributors_shows_the_file_of_every_kind():
    shown = (EXAMPLE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    missing = [file.name for file in PACKAGE.glob("[a-z]*.py") if file.name != "plugin.py" and file.name not in shown]
    assert missing == []
