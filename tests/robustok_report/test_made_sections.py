"""A fault in one section costs no other, of one run and of several."""

from __future__ import annotations

import shutil

import pytest

from robustok_core import RobustokError
from robustok_core.runs.devices import device_called
from robustok_report import several
from robustok_report.made_sections import made_sections
from robustok_report.report import first_party_sections
from robustok_report.sections import reconstructions as of_reconstructions
from robustok_toolkit.report_parts import BeforeAfter, Lines, Pictures, Section, Table, Text
from robustok_toolkit.reported_run import ReportedRun


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


def kinds(section: Section) -> list[type]:
    return [type(part) for part in section.parts]


def remarks(section: Section) -> list[str]:
    return [part.text for part in section.parts if isinstance(part, Text) and "cannot be shown" in part.text]


def test_samples_that_are_gone_cost_no_other_part_of_a_section(copied, registry):
    for folder in copied.glob("artifacts/samples-*"):
        shutil.rmtree(folder)
    run = ReportedRun(copied, registry, device_called("cpu"))
    sections = {section.title: section for section in first_party_sections(run)}
    assert kinds(sections["Post-training"]) == [Table, Text, Text, Pictures, Text]
    assert kinds(sections["Samples"]) == [Text, Lines]
    for title, words in (("Post-training", "samples before and after post-training"), ("Samples", "samples")):
        (remark,) = remarks(sections[title])
        assert remark.startswith(f"The {words} cannot be shown: ")
        assert any(line.startswith(f"the {words}: ") for line in run.missing)


def test_a_loaded_tokenizer_that_is_gone_costs_what_is_decoded_with_it_alone(as_reported):
    as_reported.record = {**as_reported.record, "inputs": {"tokenizer": "/no/such/run"}}
    sections = {section.title: section for section in first_party_sections(as_reported)}
    assert {"Reconstructions", "Codebook"} <= sections.keys()
    assert BeforeAfter not in kinds(sections["Post-training"])
    assert {Table, Pictures} <= set(kinds(sections["Post-training"]))
    (line,) = as_reported.missing
    assert line.startswith("the samples before and after post-training: ")
    assert "no longer there: /no/such/run" in line


def test_reconstructions_are_shown_where_no_perturbation_can_be(as_reported, monkeypatch):
    monkeypatch.setattr(of_reconstructions, "_strengths", lambda _: {"more": ("no_such", {"1": {}})})
    section = of_reconstructions.reconstructions(as_reported)
    assert kinds(section) == [Pictures, Text, Text]
    assert remarks(section)
