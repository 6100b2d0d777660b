"""docs/reliability.md names tests: each of them exists, and nothing on the page waits to be filled in."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and ".py" in line]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_promise_names_tests_that_exist(row):
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", row.split("|")[3])
    assert len(named) == row.split("|")[3].count("`") // 2
    for file, test in named:
        functions = [node.name for node in ast.parse((TESTS / file).read_text()).body if hasattr(node, "name")]
        assert not test or test in functions, f"{file}::{test}"


def test_every_test_of_robustness_is_behind_a_promise():
    promised = {Path(file).name for file in re.findall(r"[\w/]+\.py", PAGE)}
    assert {file.name for file in (TESTS / "robustness").glob("test_*.py")} <= promised


def test_no_cell_is_empty_and_no_placeholder_is_left():
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert [row for row in rows if not all(cell.strip() for cell in row.strip("|").split("|"))] == []
    prose = re.sub(r"`[^`]*`|\b[A-Z_]+=", "", PAGE)  # without code and environment variables
    assert re.findall(r"\b[A-Z]+_[A-Z_]+\b|\bTODO\b|\bTBD\b|\bXXX\b|\?\?", prose) == []


def test_the_long_versions_give_their_numbers():
    table = [
        line.strip("|").split("|") for line in PAGE.partition("## The long versions")[2].splitlines() if "|" in line
    ]
    numbers = [[int(cell.replace(",", "")) for cell in row[1:]] for row in table[2:]]
    assert numbers
    assert all(len(row) == 2 and row[0] > 0 for row in numbers)
