"""How a generator errs, as the report says it."""

from __future__ import annotations

import torch
from attrs import asdict

from robustok_report.sections.calibration import figures, recipe_line
from robustok_toolkit.calibration import errors_of
from robustok_toolkit.report_parts import Table, Text
from robustok_toolkit.vector_errors import MadeLatents, vector_errors


def test_a_law_is_a_line_that_a_recipe_takes():
    law = errors_of(torch.tensor([[0, 1, 2]]), 4).shares
    assert recipe_line(law) == 'perturbation = { use = "rank_law", shares = [0.5, 0.5] }'


def test_a_generator_without_errors_has_no_law_to_imitate():
    """rank_law refuses shares that are all 0."""
    parts = figures({"1": errors_of(torch.zeros(2, 3, dtype=torch.int64), 8).as_details()})
    (text,) = [part.text for part in parts if isinstance(part, Text)]
    (table,) = [part for part in parts if isinstance(part, Table)]
    assert text == "After the true codes, every draw is the true code: there are no errors to imitate."
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
