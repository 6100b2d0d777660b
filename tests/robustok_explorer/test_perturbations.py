"""Which perturbation a run is shown with: its own, or another one and a word why."""

from __future__ import annotations

import shlex
import shutil

import attrs
import pytest
from attrs import field, frozen, validators

from project import registry_with
from robustok_core import Perturbation
from robustok_explorer.answers import drawn
from robustok_explorer.perturbations import offered_by, own_perturbation, why_not_own

LAW = {"use": "rank_law", "beta": 0.25, "alpha": 0.5, "shares": [1.0, 3.0], "anneal": {"start": 0.5}}


@frozen(kw_only=True)
class ShiftConfig:
    """Needs its distance, has no strength that a slider sets, and a beta that must be said."""

    by: int
    beta: float


class Shift(Perturbation):
    """Replaces every code by the one `by` further."""

    Config = ShiftConfig

    def __init__(self, config):
        self.config = config

    def perturb(self, latents, quantizer, *, draws, progress):
        codes = (latents.codes + self.config.by) % quantizer.codebook_size
        return latents.evolve(codes=codes, vectors=quantizer.lookup(codes)), codes != latents.codes


@frozen(kw_only=True)
class StrongConfig(ShiftConfig):
    """Has a strength without default."""

    tau: float = field(validator=validators.ge(0.0))


class Strong(Shift):
    Config = StrongConfig


def trained_with(run, perturbation, **more):
    """A run whose recipe has another perturbation, or none."""
    recipe = {name: table for name, table in run.recipe.items() if name != "perturbation"}
    return attrs.evolve(run, recipe=recipe | ({} if perturbation is None else {"perturbation": perturbation}), **more)


def test_the_runs_own_perturbation_keeps_the_options_that_it_needs(trained, open_project):
    run = trained_with(open_project(trained), LAW)
    assert own_perturbation(run) == {"use": "rank_law", "alpha": 0.5, "shares": [1.0, 3.0], "beta": 1.0}
    strengths = offered_by(run)["rank_law"].strengths
    assert {name: strength.value for name, strength in strengths.items()} == {"beta": 1.0, "alpha": 0.5}
    assert why_not_own(run) is None
    sheet, code = drawn(run, "perturb", {"image": 3, "seed": 5})
    assert "'rank_law'" in code.python
    assert "perturbation.shares=[1.0, 3.0]" in shlex.split(code.command)
    assert sheet.lines[0].endswith(": 8 of 16 tokens changed.")


def test_a_plugins_perturbation_needs_no_strength_to_be_the_runs_own(trained, open_project):
    run = open_project(trained)
    registry = registry_with(perturbation={"shift": Shift, "strong": Strong})
    run.tokenizer._registry = registry
    shifted = trained_with(run, {"use": "shift", "by": 1, "beta": 0.1}, registry=registry)
    assert own_perturbation(shifted) == {"use": "shift", "by": 1, "beta": 1.0}
    assert drawn(shifted, "perturb", {"image": 3})[0].lines[0].endswith(": 16 of 16 tokens changed.")
    strong = trained_with(run, {"use": "strong", "by": 1, "beta": 0.1, "tau": 3.0}, registry=registry)
    tau = offered_by(strong)["strong"].strengths["tau"]
    assert (tau.value, tau.most) == (3.0, 3.0)
    assert {"shift", "strong"}.isdisjoint(offered_by(run))


def test_a_strength_of_the_run_beyond_the_slider_is_not_lowered(continuous, open_project):
    run = trained_with(open_project(continuous), {"use": "gaussian", "tau": 5.0})
    assert offered_by(run)["gaussian"].strengths["tau"].value == 5.0
    assert offered_by(run)["interpolate"].strengths["tau"].most == 1.0


@pytest.mark.parametrize(
    ("perturbation", "why"),
    [
        (None, r"its recipe has no [perturbation]"),
        ({"use": "none"}, 'its recipe has perturbation "none", which changes nothing'),
        ({"use": "gone", "strength": 2}, "perturbation.use: no perturbation is called 'gone'"),
        ({"use": "top_delta", "delta": 33}, "perturbation.delta: delta = 33 exceeds the codebook size (K = 32)"),
    ],
)
def test_what_takes_the_place_of_the_runs_perturbation_is_said(trained, open_project, perturbation, why):
    run = trained_with(open_project(trained), perturbation)
    assert own_perturbation(run) == {"use": "top_delta", "beta": 1.0, "alpha": 1.0, "delta": 32}
    assert why_not_own(run) == f"top_delta with its defaults takes the place of the run's own perturbation: {why}."


def test_a_drawn_view_says_what_takes_the_place_of_the_runs_perturbation(trained, tmp_path, command):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace('use = "top_delta"', 'use = "gone"'))
    note = "note: top_delta with its defaults takes the place of the run's own perturbation: "
    drawing = ("view", folder, "--draw", "perturb", "--set", "image=3")
    assert note in command(*drawing, "--out", "a.png")[2]
    assert note not in command(*drawing, "--set", "perturbation.use=top_delta", "--out", "b.png")[2]
