"""Samples: those that are there are shown."""

from __future__ import annotations

from robustok_core.runs.devices import device_called
from robustok_core.runs.files import read_json, write_json
from robustok_report.report import first_party_sections
from robustok_report.sections.samples import by_class, samples
from robustok_report.several import compared
from robustok_toolkit.report_parts import Pictures
from robustok_toolkit.reported_run import ReportedRun
from robustok_toolkit.sample_files import INDEX


def test_damage_to_the_samples_of_an_earlier_stage_costs_no_picture_of_the_last(copied, registry):
    run = ReportedRun(copied, registry, device_called("cpu"))
    first, last = run.artifacts("samples")
    assert first != last
    (first / "samples.json").write_text("{")
    sections = {section.title: section for section in first_party_sections(run)}
    assert isinstance(sections["Samples"].parts[0], Pictures)
    assert run.missing == []


def test_classes_that_are_called_alike_have_a_row_each(copied, registry):
    """ImageNet has two classes "crane"."""
    run = ReportedRun(copied, registry, device_called("cpu"))
    folder = run.artifact("samples")
    index = read_json(folder / INDEX)
    index["class_names"][:4] = ["crane", "bird", "crane", "ship"]
    write_json(folder / INDEX, index)
    rows, _ = by_class(folder)
    assert list(rows)[:4] == ["crane (0)", "bird", "crane (2)", "ship"]


def test_it_is_said_where_not_all_classes_are_shown(as_reported, monkeypatch):
    assert samples(as_reported).parts[0].title == "Guidance 2, up to 10 samples of each class"
    monkeypatch.setattr("robustok_report.sections.samples._CLASSES", 4)
    shown = samples(as_reported).parts[0]
    assert len(shown.rows) == 4
    assert shown.title == "Guidance 2, up to 10 samples of 4 of 10 classes"
    of_both = {section.title: section for section in compared([as_reported, as_reported]).sections}["Samples"]
    assert of_both.why == "The first samples of every run, up to 4 samples of 4 of 10 classes."
