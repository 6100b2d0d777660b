"""Samples: those that are there are shown."""

from __future__ import annotations

from robustok_core.runs.devices import device_called
from robustok_core.runs.files import read_json, write_json
from robustok_report.report import first_party_sections
from robustok_report.sections.samples import by_class
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
    assert list(by_class(folder))[:4] == ["crane (0)", "bird", "crane (2)", "ship"]
