"""Plans: what a recipe will do is known and checked before anything runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tomli
from attrs import frozen
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from project import (
    CODEBOOK_SIZE,
    FLOW,
    NUM_CLASSES,
    NUM_PAIRS,
    NUM_TOKENS,
    POST_TRAINING,
    TO_SAMPLES,
    TRAIN_IMAGES,
    WIDTH,
    recipe_of,
)
from robustok_core import ProblemsError, Recipe, RobustokError, Stage, hookimpl, load_registry, run
from robustok_core.cli import cli
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.runs.runner import check
from robustok_toolkit.decoder_files import DecodersPromise
from robustok_toolkit.latent_files import LatentsPromise
from robustok_toolkit.pair_files import PairsPromise
from robustok_toolkit.sample_files import SamplesPromise

PARITY = Path(__file__).parents[2] / "parity" / "robustok_tokenizer_a.safetensors"


@pytest.fixture
def whole() -> dict[str, Any]:
    """A recipe with every stage that makes something."""
    return recipe_of(
        (*TO_SAMPLES, *POST_TRAINING), compare_decoders={"keep": 0.5, "metrics": {}, "tokenizer_metrics": {}}
    )


def without_folder(promise: Any) -> dict[str, Any]:
    """What a promise says about an artifact, without its folder and what is known only once it exists."""
    later = ("folder", "fingerprint", "sketch", "tokenizer")
    names = [name for name in type(promise).__slots__ if name not in (*later, "__weakref__")]
    return {name: _plain(getattr(promise, name)) for name in names}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def test_promises_equal_those_read_from_the_files(whole, tmp_path, registry):
    plan = check(Recipe.from_table(whole), registry=registry)
    promised = {artifact: promise for stage in plan.stages for artifact, promise in stage.makes.items()}
    run(Recipe.from_table(whole), out=tmp_path)
    kinds = [TokenizerPromise, LatentsPromise, GeneratorPromise, SamplesPromise, PairsPromise, DecodersPromise]
    for name, kind in zip(["tokenizer", "latents", "generator", "samples", "pairs", "decoders"], kinds, strict=True):
        made = kind.of_artifact(find_artifact(tmp_path / "tiny", name), registry)
        assert without_folder(made) == without_folder(promised[name]), name
        assert made.describe() == promised[name].describe()


def test_check_show_prints_the_plan_above_an_equal_recipe(whole, tmp_path, registry):
    recipe = tmp_path / "whole.toml"
    recipe.write_text(Recipe.from_table(whole).resolve(registry).toml())
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


def test_recipe_toml_holds_the_defaults_of_sampler_options_left_out(whole, tmp_path):
    whole["stage"] = whole["stage"][:4]
    run(Recipe.from_table(whole), out=tmp_path)
    written = tomli.loads((tmp_path / "tiny" / "recipe.toml").read_text())
    sampling = written["stage"][3]["sampling"]
    assert sampling["steps"] == 2  # the recipe's
    assert sampling["temperature"] == 1.0  # the generator's


@pytest.mark.parametrize("loaded", [False, True])
def test_all_unknown_sampler_options_are_reported_with_their_locations(whole, trained, tmp_path, loaded):
    whole["post_trainer"]["sampling"] = {"stops": 2}
    whole["stage"][3]["sampling"] = {"steps": "many"}
    whole["stage"][-1]["sampling"] = {"step": 2}
    if loaded:
        whole["load"] = {"generator": str(trained.folder), "tokenizer": str(trained.folder)}
        whole["stage"] = whole["stage"][3:]
    with pytest.raises(ProblemsError) as caught:
        run(Recipe.from_table(whole), out=tmp_path)
    said = str(caught.value)
    assert "stage.sample.sampling.steps: expected int, found str 'many'" in said
    assert "post_trainer.sampling.stops: unknown key 'stops' (did you mean 'steps'?)" in said
    assert "stage.compare_decoders.sampling.step: unknown key 'step'" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", [3, -1])
def test_guidance_that_the_generator_was_not_trained_for_is_reported_with_its_location(whole, tmp_path, stage):
    whole["generator"]["label_dropout"] = 0.0
    whole["stage"][-1]["guidance"] = {"scale": 1.0}
    whole["stage"][stage]["guidance"] = {"scale": 3.0}
    with pytest.raises(RobustokError) as caught:
        run(Recipe.from_table(whole), out=tmp_path)
    name = whole["stage"][stage]["use"]
    assert f"stage.{name}.guidance.scale: guidance of scale 3 needs a generator" in str(caught.value)


def test_sampler_options_of_measure_are_checked_against_the_trained_generator(whole, tmp_path):
    whole["stage"][2]["measure"] = {"sampling": {"steps": 0}, "metrics": {}}
    with pytest.raises(RobustokError, match=r"stage.train_generator.measure.sampling.steps: 0 is out of range"):
        run(Recipe.from_table(whole), out=tmp_path)


# --- third-party stages -----------------------------------------------------------------------------


@frozen(kw_only=True)
class NoOptions:
    """No options."""


def with_stage(stage: type[Stage]) -> Any:
    """All installed plugins and a stage called "theirs"."""

    class Plugin:
        @hookimpl
        def robustok_register(self, register):
            register("stage", "theirs", stage)

    registry = load_registry()
    assert registry.add_plugin(Plugin(), "theirs").error is None
    return registry


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


def with_their_pairs(table: dict[str, Any]) -> dict[str, Any]:
    table["stage"][4] = {"use": "theirs"}
    return table


def test_a_stage_that_promises_too_little_for_a_later_stage_is_reported(whole, tmp_path):
    with pytest.raises(RobustokError) as caught:
        run(Recipe.from_table(with_their_pairs(whole)), registry=with_stage(TheirPairs), out=tmp_path)
    assert "stage 'post_train' needs a PairsPromise of the pairs, found a Promise" in str(caught.value)
    assert "the `plan` of the stage that makes the pairs must return a PairsPromise" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_later_stages_check_the_promises_of_a_third_party_stage(whole, tmp_path):
    with pytest.raises(RobustokError) as caught:
        run(Recipe.from_table(with_their_pairs(whole)), registry=with_stage(TheirPromisedPairs), out=tmp_path)
    said = str(caught.value)
    assert "stage.post_train.batch_size: a batch of 16 images is larger than the training split, which holds 8" in said
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.5 (sigmas: 0.25)" in said


def test_an_input_that_cannot_be_planned_is_reported_once_and_not_by_every_later_stage(whole, tmp_path):
    whole["generator"] = FLOW
    for stage in whole["stage"]:
        stage.pop("sampling", None)
    whole["post_trainer"].pop("sampling")
    with pytest.raises(RobustokError) as caught:
        run(Recipe.from_table(whole), out=tmp_path)
    assert not isinstance(caught.value, ProblemsError)


# --- loaded artifacts ----------------------------------------------------------------------------


def test_a_published_checkpoint_is_read_before_anything_runs(whole, tmp_path):
    table = copy.deepcopy(whole)
    del table["tokenizer"], table["perturbation"]
    published = tmp_path / "published.safetensors"
    save_file({name[2:]: held for name, held in load_file(PARITY).items() if name.startswith("w.")}, published)
    table["load"] = {"tokenizer": {"path": str(published), "importer": {"use": "robustok"}}}
    table["stage"] = [table["stage"][1]]
    with pytest.raises(RobustokError, match=r"image_size is \d+, but the images of \[data\] are 32 pixels wide"):
        run(Recipe.from_table(table), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_generator_of_another_tokenizer_is_refused_before_anything_runs(whole, trained, tmp_path):
    table = copy.deepcopy(whole)
    table["load"] = {"generator": str(trained.folder)}
    table["tokenizer"]["quantizer"]["codebook_size"] = 16
    table["stage"] = [table["stage"][0], table["stage"][3]]
    with pytest.raises(
        RobustokError, match="samples latents of another space .*K=32.* than the tokenizer decodes .*K=16"
    ):
        run(Recipe.from_table(table), out=tmp_path)
    assert not list(tmp_path.iterdir())
