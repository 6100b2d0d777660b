"""A fault in one section costs no other, of one run and of several."""

from __future__ import annotations

import pytest

from robustok_core import RobustokError
from robustok_report import several
from robustok_report.made_sections import made_sections
from robustok_toolkit.report_parts import Section


def lacking() -> Section:
    raise RobustokError("there are no pictures")


def broken() -> Section:
    return {}["parts"]


def test_what_fails_is_named_and_the_rest_is_there():
    missing = ["a line"]
    makers = {"A": lacking, "B": broken, "C": lambda: None, "D": lambda: Section("D", [])}
    assert [section.title for section in made_sections(makers, missing)] == ["D"]
    assert missing == [
        "a line",
        "the section A: there are no pictures",
        "the section B, which failed: KeyError: 'parts'",
    ]


@pytest.mark.parametrize("section", ["_results", "_curves"])
def test_a_comparison_of_runs_survives_a_fault_of_a_section(as_reported, monkeypatch, section):
    monkeypatch.setattr(several, section, lambda *_: broken())
    page = several.compared([as_reported, as_reported])
    assert any("which failed: KeyError" in line for line in page.missing)
    assert "Runs" in [section.title for section in page.sections]
