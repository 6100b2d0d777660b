"""Options of a sampler are read once the generator is known, wherever they stand."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen, validators

from known_codes import KnownCodes, KnownCodesConfig, KnownCodesSampling
from robustok_core import Generator, Guidance
from robustok_core.recipe.samplers import check_guidance, read_sampler_options, with_sampler_options
from robustok_core.recipe.structurer import Problem
from robustok_core.values.latents import LatentSpace
from robustok_core.values.spec import sampler_options

SPACE = LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=8)


@frozen(kw_only=True)
class Steps:
    steps: int = field(default=8, validator=validators.ge(1))


class Stepping(KnownCodes):
    """A generator with another option."""

    Sampling = Steps


class Plain(KnownCodes):
    """A generator whose sampler has no options."""

    Sampling = Generator.Sampling


@frozen(kw_only=True)
class Measure:
    """A table within a stage's."""

    sampling: Any = sampler_options(doc="of the sampler")
    guidance: Guidance = field(factory=Guidance)


@frozen(kw_only=True)
class Stage:
    """A stage that samples, and measures what it samples."""

    sampling: Any = sampler_options(doc="of the sampler")
    measure: Measure | None = None
    epochs: int = 1


def test_a_table_becomes_the_options_of_the_generator_at_hand():
    assert read_sampler_options(KnownCodes, {"shift": 2}) == (KnownCodesSampling(shift=2), [])
    assert read_sampler_options(Stepping, {}) == (Steps(), [])


def test_options_of_another_sampler_are_refused_at_their_path():
    found, problems = read_sampler_options(Stepping, {"shift": 2}, ("stage", 0, "sampling"))
    assert found is None
    assert problems == [Problem(("stage", 0, "sampling", "shift"), "unknown key 'shift'", "known: steps")]


def test_a_sampler_without_options_takes_an_empty_table_only():
    assert read_sampler_options(Plain, {}) == (Plain.Sampling(), [])
    _, problems = read_sampler_options(Plain, {"steps": 2})
    assert problems == [Problem(("steps",), "unknown key 'steps'", "none is known")]


def test_options_are_read_in_nested_tables_too_and_all_else_stays():
    stage = Stage(sampling={"shift": 1}, measure=Measure(sampling={"shift": 2}), epochs=3)
    found, problems = with_sampler_options(stage, KnownCodes, ())
    assert problems == []
    first, second = KnownCodesSampling(shift=1), KnownCodesSampling(shift=2)
    assert found == Stage(sampling=first, measure=Measure(sampling=second), epochs=3)


def test_options_that_were_read_before_stay_as_they_are():
    stage = Stage(sampling=Steps(steps=2))
    assert with_sampler_options(stage, Stepping, ()) == (stage, [])


def test_all_mistakes_are_found_and_the_configuration_stays_as_it_was():
    stage = Stage(sampling={"steps": 0}, measure=Measure(sampling={"step": 1}))
    found, problems = with_sampler_options(stage, Stepping, ("stage", 2))
    assert found is stage
    assert [problem.path for problem in problems] == [
        ("stage", 2, "sampling", "steps"),
        ("stage", 2, "measure", "sampling", "step"),
    ]


def test_guidance_needs_a_generator_with_a_null_class_wherever_it_stands():
    stage = Stage(measure=Measure(guidance=Guidance(scale=2.0)))
    without, knows = (KnownCodes(KnownCodesConfig(label_dropout=rate), SPACE, 10) for rate in (0.0, 0.1))
    (problem,) = check_guidance(stage, without, ("stage", 1))
    assert problem.path == ("stage", 1, "measure", "guidance", "scale")
    assert problem.what == "guidance of scale 2 needs a generator that was trained with label dropout"
    assert check_guidance(stage, knows, ()) == []
    assert check_guidance(Stage(measure=Measure()), without, ()) == [], "of scale 1"
