"""How a generator errs, as the report says it."""

from __future__ import annotations

import json
import math

import torch
from attrs import asdict

from robustok_core.values.result import Result
from robustok_report.sections.calibration import calibration, figures, recipe_line
from robustok_report.sections.numbers import numbers
from robustok_toolkit.calibration import errors_of
from robustok_toolkit.report_parts import Lines, Table, Text
from robustok_toolkit.vector_errors import ErrorsBySigma, MadeLatents, vector_errors


def test_a_law_is_a_line_that_a_recipe_takes():
    law = errors_of(torch.tensor([[0, 1, 2]]), 4).shares
    assert recipe_line(law) == 'perturbation = { use = "rank_law", shares = [0.5, 0.5] }'


def test_a_generator_without_errors_has_no_law_to_imitate():
    """rank_law refuses shares that are all 0."""
    parts = figures({"1": errors_of(torch.zeros(2, 3, dtype=torch.int64), 8).as_details()})
    (text,) = [part.text for part in parts if isinstance(part, Text)]
    (table,) = [part for part in parts if isinstance(part, Table)]
    assert text == "After the true codes, at guidance 1, every draw is the true code: there are no errors to imitate."
    assert table.rows == [["1", "none: every draw is the true code"]]


def test_errors_of_vectors_stand_beside_those_of_noise():
    real = torch.randn(20, 4, 2, generator=torch.Generator().manual_seed(0))
    made = MadeLatents(real=real, made=real + torch.tensor([0.1, 0.0]), labels=torch.arange(20), grid=None)
    errors = vector_errors(made, seed=0)
    (table,) = [part for part in figures({"1": {"0.9": asdict(errors)}}) if isinstance(part, Table)]
    of_generator, of_noise = table.rows
    assert of_generator[:4] == ["1", "0.9", "made", f"{errors.size:.3g}"]
    assert of_noise[:4] == ["1", "0.9", "noise", f"{errors.size:.3g}"]
    assert of_generator[4] == f"{errors.made.along_data:.3g}"
    assert of_noise[4] == f"{errors.noise.along_data:.3g}"
    assert of_generator[-1] == "0.5", "one of two channels"
    assert "–" in of_generator, "tokens without a grid have no neighbours"


RANKS = torch.tensor([[0, 1, 2], [0, 3, 0]])


def test_a_token_at_which_nothing_is_drawn_wrongly_is_a_gap():
    found = json.loads(json.dumps(errors_of(RANKS, 4).as_details(), allow_nan=False))
    assert found["rank_by_position"] == [None, 0.5, 0.5]
    of_an_earlier_version = {**found, "rank_by_position": [0.0, 0.5, 0.5]}
    for details in (found, of_an_earlier_version):
        (far,) = [part for part in figures({"1": details}) if getattr(part, "title", "").startswith("Mean rank")]
        assert math.isnan(far.series[0].y[0])
        assert far.series[0].y[1:] == [0.5, 0.5]


def test_the_scale_of_percentages_is_named_and_two_stages_have_titles_of_their_own(as_reported):
    details = {"by_scale": {"1.5": errors_of(RANKS, 4).as_details(), "3": errors_of(RANKS, 4).as_details()}}
    as_reported.results = {"calibrate/changed": Result(0.5, num_images=2, details=details)}
    alone = calibration(as_reported).parts
    assert alone[0].text.startswith("After the true codes, at guidance 1.5, 50 % of the draws are another code.")
    as_reported.results["again/changed"] = Result(0.5, num_images=2, details=details)
    both = calibration(as_reported).parts
    titles = [part.title for part in both if isinstance(part, Lines | Table)]
    assert len(set(titles)) == len(titles) == 8
    assert "Mean rank of the errors, by token (again)" in titles
    assert [part.text.partition(", 50")[0] for part in both if isinstance(part, Text)] == [
        "After the true codes, at guidance 1.5 (calibrate)",
        "After the true codes, at guidance 1.5 (again)",
    ]


def test_what_was_measured_of_vectors_is_explained_with_its_number_of_images(as_reported):
    real = torch.randn(20, 4, 2, generator=torch.Generator().manual_seed(0))
    made = MadeLatents(real=real, made=real + torch.tensor([0.1, 0.0]), labels=torch.arange(20), grid=(2, 2))
    measured = ErrorsBySigma({"0.9": vector_errors(made, seed=0)}).numbers()
    assert len(measured) == 4
    as_reported.results = {f"calibrate/{name}": Result(value, num_images=20) for name, value in measured.items()}
    (table,) = numbers(as_reported).parts
    assert len(table.rows) == 4
    for name, value, what in table.rows:
        assert "at the first guidance scale and σ" in what
        assert name.text != name.hint.removeprefix("calibrate/").replace("_", " ")
        assert value.hint == "20 images"
