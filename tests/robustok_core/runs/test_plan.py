"""Plans: what a recipe will do is known and checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli
from attrs import frozen
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from project import (
    BATCH_SIZE,
    CODEBOOK_SIZE,
    FLOW,
    NUM_CLASSES,
    NUM_PAIRS,
    NUM_TOKENS,
    POST_TRAINING,
    TO_SAMPLES,
    TRAIN_IMAGES,
    WIDTH,
    Project,
    registry_with,
)
from robustok_core import ProblemsError, Recipe, RobustokError, Stage
from robustok_core.cli import cli
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.runs.runner import check
from robustok_toolkit.decoder_files import DecodersPromise
from robustok_toolkit.latent_files import LatentsPromise
from robustok_toolkit.pair_files import PairsPromise
from robustok_toolkit.sample_files import SamplesPromise

PARITY = Path(__file__).parents[2] / "parity" / "robustok_tokenizer_a.safetensors"


@pytest.fixture
def whole(tmp_path) -> Project:
    """A project with every stage that makes something."""
    options = {"keep": 0.5, "metrics": {}, "tokenizer_metrics": {}}
    return Project(tmp_path / "runs", (*TO_SAMPLES, *POST_TRAINING), compare_decoders=options)


def without_folder(promise: Any) -> dict[str, Any]:
    """What a promise says about an artifact, without its folder and what is known only once it exists."""
    later = ("folder", "fingerprint", "sketch", "tokenizer")
    names = [name for name in type(promise).__slots__ if name not in (*later, "__weakref__")]
    return {name: _plain(getattr(promise, name)) for name in names}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def test_promises_equal_those_read_from_the_files(whole, registry):
    plan = whole.check()
    promised = {artifact: promise for stage in plan.stages for artifact, promise in stage.makes.items()}
    whole.run()
    kinds = [TokenizerPromise, LatentsPromise, GeneratorPromise, SamplesPromise, PairsPromise, DecodersPromise]
    for name, kind in zip(["tokenizer", "latents", "generator", "samples", "pairs", "decoders"], kinds, strict=True):
        made = kind.of_artifact(whole.artifact(name), registry)
        assert without_folder(made) == without_folder(promised[name]), name
        assert made.describe() == promised[name].describe()


def test_check_show_prints_the_plan_above_an_equal_recipe(whole, tmp_path, registry):
    recipe = tmp_path / "whole.toml"
    recipe.write_text(Recipe.from_table(whole.table).resolve(registry).toml())
    shown = CliRunner().invoke(cli, ["check", "--show", str(recipe)]).output
    assert "# tokenize reads tokenizer" in shown
    space = f"discrete, {NUM_TOKENS} tokens of width {WIDTH}, K={CODEBOOK_SIZE}"
    assert f"#   -> latents: {space}; {TRAIN_IMAGES} training images of {NUM_CLASSES} classes" in shown
    assert f"#   -> pairs: {NUM_PAIRS} for each sigma of 1, 0.5" in shown
    again = Recipe.from_table(tomli.loads(shown), name="tiny")
    assert (
        check(again, registry=registry).recipe.table() == check(Recipe.load(recipe), registry=registry).recipe.table()
    )


# --- options of samplers --------------------------------------------------------------------------


def test_recipe_toml_holds_the_defaults_of_sampler_options_left_out(tmp_path):
    project = Project(tmp_path, TO_SAMPLES).run()
    written = tomli.loads((project.folder / "recipe.toml").read_text())
    sampling = written["stage"][3]["sampling"]
    assert sampling["steps"] == project.stage("sample")["sampling"]["steps"]
    assert sampling["temperature"] == 1.0  # the generator's


@pytest.mark.parametrize("loaded", [False, True])
def test_all_unknown_sampler_options_are_reported_with_their_locations(whole, trained, loaded):
    whole.table["post_trainer"]["sampling"] = {"stops": 2}
    whole.stage("sample")["sampling"] = {"steps": "many"}
    whole.stage("compare_decoders")["sampling"] = {"step": 2}
    if loaded:
        whole.table["load"] = {"generator": str(trained.folder), "tokenizer": str(trained.folder)}
        whole.table["stage"] = whole.table["stage"][3:]
    with pytest.raises(ProblemsError) as caught:
        whole.run()
    said = str(caught.value)
    assert "stage.sample.sampling.steps: expected int, found str 'many'" in said
    assert "post_trainer.sampling.stops: unknown key 'stops' (did you mean 'steps'?)" in said
    assert "stage.compare_decoders.sampling.step: unknown key 'step'" in said
    assert not whole.out.exists()


@pytest.mark.parametrize("stage", ["sample", "compare_decoders"])
def test_guidance_that_the_generator_was_not_trained_for_is_reported_with_its_location(whole, stage):
    whole.table["generator"]["label_dropout"] = 0.0
    whole.stage("compare_decoders")["guidance"] = {"scale": 1.0}
    whole.stage(stage)["guidance"] = {"scale": 3.0}
    assert f"stage.{stage}.guidance.scale: guidance of scale 3 needs a generator" in whole.refusal()


def test_sampler_options_of_measure_are_checked_against_the_trained_generator(whole):
    whole.stage("train_generator")["measure"] = {"sampling": {"steps": 0}, "metrics": {}}
    assert "stage.train_generator.measure.sampling.steps: 0 is out of range" in whole.refusal()


# --- third-party stages -----------------------------------------------------------------------------


@frozen(kw_only=True)
class NoOptions:
    """No options."""


class TheirPairs(Stage):
    """Makes pairs in its own way."""

    Config = NoOptions
    needs = ("tokenizer", "generator")
    makes = ("pairs",)

    def __init__(self, config):
        pass

    def run(self, context):
        raise AssertionError("nothing may run")


class TheirPromisedPairs(TheirPairs):
    def plan(self, context):
        return {"pairs": PairsPromise(sigmas=[0.25], num_rows=8, post_trainer={})}


def refusal_of(project: Project, stage: type[Stage]) -> str:
    """What is said of a project that makes its pairs with another stage."""
    pairs = project.table["stage"].index(project.stage("make_pairs"))
    project.table["stage"][pairs] = {"use": "theirs"}
    return project.refusal(registry=registry_with(stage={"theirs": stage}))


def test_a_stage_that_promises_too_little_for_a_later_stage_is_reported(whole):
    said = refusal_of(whole, TheirPairs)
    assert "stage 'post_train' needs a PairsPromise of the pairs, found a Promise" in said
    assert "the `plan` of the stage that makes the pairs must return a PairsPromise" in said
    assert not whole.out.exists()


def test_later_stages_check_the_promises_of_a_third_party_stage(whole):
    said = refusal_of(whole, TheirPromisedPairs)
    batch = f"a batch of {BATCH_SIZE} images is larger than the training split, which holds 8"
    assert f"stage.post_train.batch_size: {batch}" in said
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.5 (sigmas: 0.25)" in said


def test_an_input_that_cannot_be_planned_is_reported_once_and_not_by_every_later_stage(whole):
    whole.table["generator"] = FLOW
    for stage in whole.table["stage"]:
        stage.pop("sampling", None)
    whole.table["post_trainer"].pop("sampling")
    with pytest.raises(RobustokError) as caught:
        whole.run()
    assert not isinstance(caught.value, ProblemsError)


# --- loaded artifacts ----------------------------------------------------------------------------


def test_a_published_checkpoint_is_read_before_anything_runs(tmp_path):
    project = Project(tmp_path / "runs", ["tokenize"])
    published = tmp_path / "published.safetensors"
    save_file({name[2:]: held for name, held in load_file(PARITY).items() if name.startswith("w.")}, published)
    project.table["load"] = {"tokenizer": {"path": str(published), "importer": {"use": "robustok"}}}
    with pytest.raises(RobustokError, match=r"image_size is \d+, but the images of \[data\] are 32 pixels wide"):
        project.run()
    assert not project.out.exists()


def test_a_generator_of_another_tokenizer_is_refused_before_anything_runs(trained, tmp_path):
    project = Project(tmp_path, ["train_tokenizer", "sample"], load={"generator": trained.folder})
    project.table["tokenizer"]["quantizer"]["codebook_size"] = 16
    with pytest.raises(
        RobustokError, match="samples latents of another space .*K=32.* than the tokenizer decodes .*K=16"
    ):
        project.run()
    assert not list(tmp_path.iterdir())
