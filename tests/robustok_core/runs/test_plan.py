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

from robustok_core import ProblemsError, Recipe, RobustokError, RunError, Stage, hookimpl, load_registry, run
from robustok_core.cli import cli
from robustok_core.runs.files import read_json
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.runs.runner import check
from robustok_toolkit.decoder_files import DecodersPromise
from robustok_toolkit.latent_files import LatentsPromise
from robustok_toolkit.pair_files import PairsPromise
from robustok_toolkit.sample_files import SamplesPromise

PARITY = Path(__file__).parents[2] / "parity" / "robustok_tokenizer_a.safetensors"


@pytest.fixture
def whole(generation_recipe) -> dict[str, Any]:
    """A recipe with every stage that makes something."""
    table = generation_recipe()
    table["post_trainer"] = {"use": "decoder", "sampling": {"steps": 2}}
    table["stage"] += [
        {"use": "make_pairs", "sigma": [0.5], "num_pairs": 32},
        {"use": "post_train", "epochs": 1, "batch_size": 16},
        {"use": "compare_decoders", "num_samples": 20, "keep": 0.5, "metrics": {}, "tokenizer_metrics": {}},
    ]
    return table


def without_folder(promise: Any) -> dict[str, Any]:
    """What a promise says about an artifact, without its folder and what only the plan or only the files tell."""
    others = ("folder", "fingerprint", "sketch", "tokenizer", "made_of", "stage")
    names = [name for name in type(promise).__slots__ if name not in (*others, "__weakref__")]
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
    assert "#   -> latents: discrete, 16 tokens of width 4, K=32; 80 training images of 10 classes" in shown
    assert "#   -> pairs: 32 for each sigma of 1, 0.5" in shown
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
def test_all_unknown_sampler_options_are_reported_with_their_locations(whole, generated, tmp_path, loaded):
    whole["post_trainer"]["sampling"] = {"stops": 2}
    whole["stage"][3]["sampling"] = {"steps": "many"}
    whole["stage"][-1]["sampling"] = {"step": 2}
    if loaded:
        whole["load"] = {"generator": str(generated[1]), "tokenizer": str(generated[1])}
        whole["stage"] = whole["stage"][3:]
    with pytest.raises(ProblemsError) as caught:
        run(Recipe.from_table(whole), out=tmp_path)
    message = str(caught.value)
    assert "stage.sample.sampling.steps: expected int, found str 'many'" in message
    assert "post_trainer.sampling.stops: unknown key 'stops' (did you mean 'steps'?)" in message
    assert "stage.compare_decoders.sampling.step: unknown key 'step'" in message
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
    message = str(caught.value)
    assert "stage 'theirs' makes the pairs that stage 'post_train' reads: its `plan` promises a Promise" in message
    assert "return a PairsPromise (from robustok_toolkit.pair_files) from `plan`" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("promised", "message"),
    [
        ({"pair": PairsPromise(sigmas=[0.5], num_rows=8, post_trainer={})}, "promises 'pair', which it does not make"),
        (None, "must return promises by artifact, found None"),
        ({"pairs": 8}, "must return promises by artifact, found {'pairs': 8}"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_name_of_its_stage(whole, tmp_path, promised, message):
    class Theirs(TheirPairs):
        def plan(self, context):
            return promised

    with pytest.raises(RobustokError, match="stage 'theirs'") as caught:
        run(Recipe.from_table(with_their_pairs(whole)), registry=with_stage(Theirs), out=tmp_path)
    assert message in str(caught.value)


def test_a_stage_that_makes_something_else_than_it_promised_ends_the_run_before_others_read_it(generated, tmp_path):
    class Theirs(TheirPairs):
        makes = ("samples",)
        needs = ("samples",)

        def plan(self, context):
            return {"samples": SamplesPromise(num_samples=10**6, image_size=32)}

        def run(self, context):
            with context.making("samples") as folder:
                for file in context.inputs["samples"].iterdir():
                    (folder / file.name).hardlink_to(file)
            return {}

    table = {"run": {"name": "theirs"}, "load": {"samples": str(generated[1])}, "stage": [{"use": "theirs"}]}
    with pytest.raises(RunError, match="promised '1,000,000 images of 32 x 32' of the samples and made '24 images"):
        run(Recipe.from_table(table), registry=with_stage(Theirs), out=tmp_path)


def test_promises_are_for_checks_and_plans_of_what_a_stage_needs(whole, tmp_path):
    class Theirs(TheirPairs):
        def check(self, context):
            context.promise("latents", LatentsPromise)

    with pytest.raises(RobustokError, match="stage 'theirs' asks for a promise of 'latents' .name it in `needs`"):
        run(Recipe.from_table(with_their_pairs(whole)), registry=with_stage(Theirs), out=tmp_path)


def test_a_stage_that_cannot_be_built_hides_no_other_mistake(whole, tmp_path):
    class Theirs(TheirPairs):
        def __init__(self, config):
            raise RobustokError("theirs cannot be built")

    whole["stage"][0]["batch_size"] = 81
    with pytest.raises(ProblemsError) as caught:
        run(Recipe.from_table(with_their_pairs(whole)), registry=with_stage(Theirs), out=tmp_path)
    assert "theirs cannot be built" in str(caught.value)
    assert "a batch of 81 images is larger" in str(caught.value)


@pytest.mark.parametrize("stage", ["make_pairs", "post_train"])
def test_a_stage_has_the_same_fingerprint_whatever_comes_behind_it(whole, tmp_path, registry, stage):
    """Else it would run again once more stages are asked for."""
    resolved = Recipe.from_table(whole).resolve(registry)
    run(resolved.until(stage), registry=registry, out=tmp_path)
    before = read_json(tmp_path / "tiny" / "run.json")["current"][stage]
    run(resolved, registry=registry, out=tmp_path)
    assert read_json(tmp_path / "tiny" / "run.json")["current"][stage] == before


def test_pairs_alone_and_pairs_beside_a_comparison_train_the_same_decoders(whole, tmp_path, registry):
    run(Recipe.from_table(whole), registry=registry, out=tmp_path)
    folder = tmp_path / "tiny"
    tokenizer = folder / "artifacts" / f"tokenizer-{read_json(folder / 'run.json')['current']['train_tokenizer']}"
    later = {name: whole[name] for name in ("data", "post_trainer")} | {"run": whole["run"] | {"name": "later"}}
    fingerprints = set()
    for count in (1, 2):
        load = {"tokenizer": tokenizer, "pairs": folder} | ({"generator": folder} if count == 2 else {})
        table = later | {
            "load": {name: str(path) for name, path in load.items()},
            "stage": whole["stage"][5 : 5 + count],
        }
        run(Recipe.from_table(table), registry=registry, out=tmp_path)
        fingerprints.add(read_json(tmp_path / "later" / "run.json")["current"]["post_train"])
    assert len(fingerprints) == 1


def test_later_stages_check_the_promises_of_a_third_party_stage(whole, tmp_path):
    with pytest.raises(RobustokError) as caught:
        run(Recipe.from_table(with_their_pairs(whole)), registry=with_stage(TheirPromisedPairs), out=tmp_path)
    message = str(caught.value)
    assert (
        "stage.post_train.batch_size: a batch of 16 images is larger than the training split, which holds 8" in message
    )
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.5 (sigmas: 0.25)" in message


def test_an_input_that_cannot_be_planned_is_reported_once_and_not_by_every_later_stage(whole, tmp_path):
    whole["generator"] = {"use": "flow_transformer", "width": 16, "depth": 1, "num_heads": 2}
    for stage in whole["stage"]:
        stage.pop("sampling", None)
    whole["post_trainer"].pop("sampling")
    with pytest.raises(RobustokError) as caught:
        run(Recipe.from_table(whole), out=tmp_path)
    assert not isinstance(caught.value, ProblemsError)


# --- loaded artifacts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["train_tokenizer", "tokenize", "train_generator", "again", "sample"], "was trained on the latents of"),
        (["train_tokenizer", "tokenize", "again", "train_generator"], "these are latents of another tokenizer"),
    ],
)
def test_a_tokenizer_that_a_stage_trains_anew_does_not_fit_what_came_from_the_first(whole, tmp_path, order, message):
    stages = {stage["use"]: stage for stage in whole["stage"]}
    stages["again"] = stages["train_tokenizer"] | {"name": "again"}
    whole["stage"] = [stages[name] for name in order]
    with pytest.raises(RobustokError, match=message):
        run(Recipe.from_table(whole), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_decoders_are_compared_with_the_generator_that_they_were_trained_for(whole, tmp_path):
    again = whole["stage"][2] | {"name": "again"}
    whole["stage"].insert(-1, again)
    with pytest.raises(RobustokError, match="decoders were not trained with the generator in stage again"):
        run(Recipe.from_table(whole), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_post_trainer_samples_one_generator(whole, generated, tmp_path):
    """The recipe loads a MaskGIT and trains a RAR behind the first pairs."""
    whole["load"] = {"tokenizer": str(generated[1]), "generator": str(generated[1])}
    whole["generator"] = {"use": "rar", "width": 16, "depth": 1, "num_heads": 2}
    pairs = whole["stage"][4]
    whole["stage"] = [pairs, whole["stage"][1], whole["stage"][2], pairs | {"name": "again"}]
    with pytest.raises(RobustokError, match="post_trainer.sampling: it holds options for another generator's sampler"):
        run(Recipe.from_table(whole), out=tmp_path)


@pytest.mark.parametrize(
    ("results", "message"),
    [(None, "must return numbers or Results by name, found None"), ({}, "has not made the pairs")],
)
def test_a_stage_that_returns_or_makes_nothing_is_named(whole, tmp_path, results, message):
    class Theirs(TheirPairs):
        needs = ()

        def run(self, context):
            return results

    table = {"run": {"name": "theirs"}, "stage": [{"use": "theirs"}]}
    with pytest.raises(RunError, match=f"stage 'theirs' {message}"):
        run(Recipe.from_table(table), registry=with_stage(Theirs), out=tmp_path)


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


def test_a_generator_of_another_tokenizer_is_refused_before_anything_runs(whole, generated, tmp_path):
    table = copy.deepcopy(whole)
    table["load"] = {"generator": str(generated[1])}
    table["tokenizer"]["quantizer"]["codebook_size"] = 16
    table["stage"] = [table["stage"][0], table["stage"][3]]
    with pytest.raises(
        RobustokError, match="samples latents of a different space .*K=32.* from what the tokenizer decodes .*K=16"
    ):
        run(Recipe.from_table(table), out=tmp_path)
    assert not list(tmp_path.iterdir())
