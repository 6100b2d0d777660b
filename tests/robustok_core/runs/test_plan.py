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
from robustok_core import ProblemsError, Recipe, RobustokError, RunError, Stage
from robustok_core.cli import cli
from robustok_core.runs.checking import check
from robustok_core.runs.files import read_json
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
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
    """What a promise says about an artifact, without its folder and what only the plan or only the files tell."""
    others = ("folder", "fingerprint", "sketch", "tokenizer", "made_of", "stage", "decoder_stage")
    names = [name for name in type(promise).__slots__ if name not in (*others, "__weakref__")]
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
    message = str(caught.value)
    assert "stage.sample.sampling.steps: expected int, found str 'many'" in message
    assert "post_trainer.sampling.stops: unknown key 'stops' (did you mean 'steps'?)" in message
    assert "stage.compare_decoders.sampling.step: unknown key 'step'" in message
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
    """The message with which a project is refused that makes its pairs with another stage."""
    pairs = project.table["stage"].index(project.stage("make_pairs"))
    project.table["stage"][pairs] = {"use": "theirs"}
    return project.refusal(registry=registry_with(stage={"theirs": stage}))


def test_a_stage_that_promises_too_little_for_a_later_stage_is_reported(whole):
    message = refusal_of(whole, TheirPairs)
    assert "stage 'theirs' makes the pairs that stage 'post_train' reads: its `plan` promises a Promise" in message
    assert "return a PairsPromise (from robustok_toolkit.pair_files) from `plan`" in message
    assert not whole.out.exists()


@pytest.mark.parametrize(
    ("promised", "message"),
    [
        ({"pair": PairsPromise(sigmas=[0.5], num_rows=8, post_trainer={})}, "promises 'pair', which it does not make"),
        (None, "must return promises by artifact, found None"),
        ({"pairs": 8}, "must return promises by artifact, found {'pairs': 8}"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_name_of_its_stage(whole, promised, message):
    class Theirs(TheirPairs):
        def plan(self, context):
            return promised

    refusal = refusal_of(whole, Theirs)
    assert "stage 'theirs'" in refusal
    assert message in refusal


def test_a_stage_that_makes_something_else_than_it_promised_ends_the_run_before_others_read_it(trained, tmp_path):
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

    project = Project(tmp_path, [{"use": "theirs"}], load={"samples": trained.folder})
    with pytest.raises(RunError, match="promised '1,000,000 images of 32 x 32' of the samples and made '24 images"):
        project.run(registry=registry_with(stage={"theirs": Theirs}))


def test_promises_are_for_checks_and_plans_of_what_a_stage_needs(whole):
    class Theirs(TheirPairs):
        def check(self, context):
            context.promise("latents", LatentsPromise)

    message = refusal_of(whole, Theirs)
    assert "stage 'theirs' reads the artifact 'latents', which its class does not name in `needs`" in message


def test_a_stage_that_cannot_be_built_hides_no_other_mistake(whole):
    class Theirs(TheirPairs):
        def __init__(self, config):
            raise RobustokError("theirs cannot be built")

    whole.stage("train_tokenizer")["batch_size"] = TRAIN_IMAGES + 1
    message = refusal_of(whole, Theirs)
    assert "theirs cannot be built" in message
    assert f"a batch of {TRAIN_IMAGES + 1} images is larger" in message


def fingerprint(project: Project, stage: str) -> str:
    """The fingerprint of a stage in the project's present recipe."""
    return read_json(project.folder / "run.json")["current"][stage]


@pytest.mark.parametrize("stage", ["make_pairs", "post_train"])
def test_a_stage_has_the_same_fingerprint_whatever_comes_behind_it(whole, stage):
    """Else it would run again once more stages are asked for."""
    stages = whole.table["stage"]
    shorter = {**whole.table, "stage": stages[: stages.index(whole.stage(stage)) + 1]}
    before = fingerprint(Project.of(shorter, whole.out).run(), stage)
    assert fingerprint(whole.run(), stage) == before


def test_pairs_alone_and_pairs_beside_a_comparison_train_the_same_decoders(whole, tmp_path):
    whole.run()
    fingerprints = set()
    for stages, load in ((["post_train"], ["pairs"]), (["post_train", "compare_decoders"], ["pairs", "generator"])):
        later = whole.later(tmp_path / "later", stages, load=load)
        later.table["load"]["tokenizer"] = str(whole.artifact("tokenizer", stage="train_tokenizer"))
        fingerprints.add(fingerprint(later.run(), "post_train"))
    assert len(fingerprints) == 1


def test_later_stages_check_the_promises_of_a_third_party_stage(whole):
    message = refusal_of(whole, TheirPromisedPairs)
    batch = f"a batch of {BATCH_SIZE} images is larger than the training split, which holds 8"
    assert f"stage.post_train.batch_size: {batch}" in message
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.5 (sigmas: 0.25)" in message


def test_an_input_that_cannot_be_planned_is_reported_once_and_not_by_every_later_stage(whole):
    whole.table["generator"] = FLOW
    for stage in whole.table["stage"]:
        stage.pop("sampling", None)
    whole.table["post_trainer"].pop("sampling")
    with pytest.raises(RobustokError) as caught:
        whole.run()
    assert not isinstance(caught.value, ProblemsError)


@pytest.mark.parametrize(
    ("results", "message"),
    [(None, "must return numbers or Results by name, found None"), ({}, "has not made the pairs")],
)
def test_a_stage_that_returns_or_makes_nothing_is_named(tmp_path, results, message):
    class Theirs(TheirPairs):
        needs = ()

        def run(self, context):
            return results

    with pytest.raises(RunError, match=f"stage 'theirs' {message}"):
        Project(tmp_path, [{"use": "theirs"}]).run(registry=registry_with(stage={"theirs": Theirs}))


# --- components that do not belong together ------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["train_tokenizer", "tokenize", "train_generator", "again", "sample"], "was trained on the latents of"),
        (["train_tokenizer", "tokenize", "again", "train_generator"], "these are latents of another tokenizer"),
    ],
)
def test_a_tokenizer_that_a_stage_trains_anew_does_not_fit_what_came_from_the_first(whole, order, message):
    again = whole.stage("train_tokenizer") | {"name": "again"}
    whole.table["stage"] = [again if name == "again" else whole.stage(name) for name in order]
    assert message in whole.refusal()
    assert not whole.out.exists()


class TheirTokenizer(TheirPairs):
    """Makes a tokenizer, and says no more of it than must be said."""

    needs = ("tokenizer",)
    makes = ("tokenizer",)

    def plan(self, context):
        before = context.promise("tokenizer", TokenizerPromise)
        return {"tokenizer": TokenizerPromise(space=before.space, image_size=before.image_size)}


@pytest.mark.parametrize("place", [2, 3])
def test_a_tokenizer_whose_stage_does_not_say_what_it_is_may_be_that_of_the_latents(whole, place):
    whole.table["stage"] = [whole.stage(name) for name in TO_SAMPLES]
    whole.table["stage"].insert(place, {"use": "theirs"})
    whole.check(registry=registry_with(stage={"theirs": TheirTokenizer}))


def test_decoders_are_compared_with_the_generator_that_they_were_trained_for(whole):
    whole.table["stage"].insert(-1, whole.stage("train_generator") | {"name": "again"})
    assert "decoders were not trained with the generator in stage again" in whole.refusal()
    assert not whole.out.exists()


def test_a_post_trainer_samples_one_generator(whole, trained):
    """The recipe loads a MaskGIT and trains a RAR behind the first pairs."""
    whole.table["load"] = dict.fromkeys(("tokenizer", "generator"), str(trained.folder))
    whole.table["generator"] = {"use": "rar", "width": 16, "depth": 1, "num_heads": 2}
    pairs = whole.stage("make_pairs")
    whole.table["stage"] = [pairs, whole.stage("tokenize"), whole.stage("train_generator"), pairs | {"name": "again"}]
    assert "post_trainer.sampling: it holds options for another generator's sampler" in whole.refusal()


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
        RobustokError, match="samples latents of a different space .*K=32.* from what the tokenizer decodes .*K=16"
    ):
        project.run()
    assert not list(tmp_path.iterdir())
