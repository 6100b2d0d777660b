"""Post-training as a user runs it: pairs, decoders, what changes and what must not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from processes import one_and_two
from project import (
    ADVERSARIAL,
    BATCH_SIZE,
    COLOURS,
    NUM_PAIRS,
    POST_TRAINING,
    TABLES,
    Project,
    assert_same_weights,
    registry_with,
)
from robustok_core import Recipe, hookimpl
from robustok_core.errors import Interrupted, RunError
from robustok_core.runs.checking import check
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.results import read_results
from robustok_stages.post_training.training_step import DecoderStep
from robustok_stages.tokenizer.train_tokenizer import TrainTokenizer


def test_only_the_decoder_changes(post_trained):
    before, after = post_trained.weights("tokenizer", stage="train_tokenizer"), post_trained.weights("tokenizer")
    behind = ("post_quant_conv.", "pixel_decoder.")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(behind) for name in changed)
    assert {name for name in before if name.startswith(behind) and before[name].is_floating_point()} == changed


def test_the_newest_tokenizer_of_the_run_is_the_post_trained_one_and_has_the_same_latents(post_trained):
    assert post_trained.artifact("tokenizer") == post_trained.artifact("tokenizer", stage="compare_decoders")
    first = post_trained.component("tokenizer", stage="train_tokenizer")
    assert latent_fingerprint(post_trained.component("tokenizer")) == latent_fingerprint(first)


def test_results_of_before_and_after_are_comparable(post_trained):
    results = post_trained.results
    stage = "compare_decoders/"
    names = {name.removeprefix(stage) for name in results if name.startswith(stage)}
    for arm in ("before", "sigma1", "sigma0.5"):
        wanted = ("gfd_fashion_classifier", "guided_gfd_fashion_classifier", "psnr")
        assert {f"{arm}_{name}" for name in wanted} <= names
        for name in wanted:
            details = results[f"compare_decoders/{arm}_{name}"].details
            assert (details["decoder"], details["guided"]) == (arm, "guided" in name)
            assert details["sigma"] == {"before": None, "sigma1": 1.0, "sigma0.5": 0.5}[arm]
    assert results["compare_decoders/kept_sigma"].value == 0.5
    pictures = post_trained.artifact("comparison")
    assert (pictures / "samples.png").is_file()
    assert (pictures / "sigma.png").is_file()


def steps_of_arms(project: Project) -> dict[str, list[int]]:
    steps: dict[str, list[int]] = {}
    for line in project.logged("post_train"):
        steps.setdefault(line["fingerprint"].rpartition("-")[2], []).append(line["step"])
    return steps


def test_decoders_see_the_same_images_in_the_same_order(whole, tmp_path, monkeypatch):
    seen: list[int] = []
    real = DecoderStep.forward

    def forward(step, batch, draws, progress, earlier):
        seen.extend(batch.indices.tolist())
        return real(step, batch, draws, progress, earlier)

    monkeypatch.setattr(DecoderStep, "forward", forward)
    project = whole(tmp_path).run()
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert first == second
    assert sorted(first) == sorted(2 * list(set(first)))  # two epochs
    steps = list(range(1, 2 * NUM_PAIRS // BATCH_SIZE + 1))
    assert steps_of_arms(project) == {"sigma1": steps, "sigma0.5": steps}


class StopAt:
    """Interrupts a stage after its n-th logged step."""

    def __init__(self, stage: str, times: int) -> None:
        self.stage, self.times = stage, times

    @hookimpl
    def robustok_step_logged(self, folder, stage, step, values):
        self.times -= stage == self.stage
        if self.times == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("times", [2, 9])
def test_an_interrupted_post_training_ends_with_the_same_weights(whole, post_trained, tmp_path, times):
    project = whole(tmp_path, post_train={"checkpoint_every": 1})
    with pytest.raises(Interrupted):
        project.run(registry=registry_with(StopAt("post_train", times)))
    assert project.run().results == post_trained.results
    assert_same_weights(project.weights("tokenizer"), post_trained.weights("tokenizer"))


def test_two_processes_make_the_same_pairs_and_decoders(whole, post_trained, tmp_path):
    other = whole(tmp_path / "two").run_on_two()
    for name in ("sigma1", "sigma0.5"):
        codes = []
        for one in (post_trained, other):
            pairs = one.artifact("pairs")
            parts = read_json(pairs / "latents.json")["splits"][name]["parts"]
            codes.append(np.concatenate([np.load(pairs / "parts" / part["file"]) for part in parts]))
        assert (codes[0] == codes[1]).mean() > 0.9  # the tokenizers differ by the order of sums
    assert steps_of_arms(other) == steps_of_arms(post_trained)
    results = [read_results(one.folder) for one in (post_trained, other)]
    assert results[0].keys() == results[1].keys()
    for arm in ("sigma1", "sigma0.5"):
        psnr, psnr_on_two = (result[f"compare_decoders/{arm}_psnr"].value for result in results)
        assert psnr_on_two == pytest.approx(psnr, abs=0.1)
        assert psnr_on_two != results[1]["compare_decoders/before_psnr"].value


def discriminator_steps(tensors: dict[str, torch.Tensor], prefix: str) -> set[float]:
    return {float(value) for name, value in tensors.items() if name.startswith(f"{prefix}/step/")}


def test_the_discriminator_of_main_training_continues_where_it_stopped(post_trained):
    held = read_tensors(post_trained.artifact("tokenizer", stage="train_tokenizer") / "opponents.safetensors")
    (main_steps,) = discriminator_steps(held, "optimizer/adversarial")
    assert main_steps > 0
    for arm in ("sigma1", "sigma0.5"):
        (kept,) = (post_trained.folder / "checkpoints").glob(f"post_train-*/{arm}/*")
        state = read_tensors(kept / "state.safetensors")
        own_steps = read_json(kept / "state.json")["step"]
        assert discriminator_steps(state, "optimizer/adversarial_opponent") == {main_steps + own_steps}


def without_discriminator(trained: Project, out: Path, **post_train: Any) -> Project:
    """Post-training with an adversarial loss of a tokenizer that was trained without one."""
    project = trained.later(out, POST_TRAINING, load=("tokenizer", "generator"), post_train=post_train)
    project.table["post_trainer"] = TABLES["post_trainer"]
    project.stage("post_train")["losses"] = ADVERSARIAL
    return project


def test_a_missing_discriminator_is_reported_before_anything_is_trained(trained, tmp_path):
    project = without_discriminator(trained, tmp_path)
    assert "has no discriminator to reuse" in project.refusal()
    assert not project.folder.exists()


def test_a_discriminator_that_main_training_will_not_save_is_reported_before_main_training(whole, tmp_path):
    project = whole(tmp_path, train_tokenizer={"losses": {"reconstruction": {"use": "reconstruction"}}})
    assert "has no discriminator to reuse" in project.refusal()
    project.stage("train_tokenizer")["losses"]["gan"] = ADVERSARIAL["adversarial"]
    message = project.refusal()
    assert "the tokenizer has no opponent for a loss 'adversarial', only for gan" in message
    assert "stage.post_train.losses.adversarial" in message
    assert not list(tmp_path.iterdir())


class TheirTraining(TrainTokenizer):
    """A stage that does not say which discriminators it will store."""

    def plan(self, context):
        return {"tokenizer": attrs.evolve(super().plan(context)["tokenizer"], opponents=None)}


def test_discriminators_that_a_stage_does_not_promise_are_looked_for_when_it_has_run(whole, tmp_path):
    theirs, registry = {"use": "theirs", "name": "train_tokenizer"}, registry_with(stage={"theirs": TheirTraining})
    project = whole(tmp_path / "stored", train_tokenizer=theirs).run(registry=registry)
    assert "compare_decoders/kept_sigma" in project.results
    without = theirs | {"losses": {"reconstruction": {"use": "reconstruction"}}}
    project = whole(tmp_path / "none", train_tokenizer=without)
    with pytest.raises(RunError, match="there is no discriminator for adversarial"):
        project.run(registry=registry)


@pytest.mark.parametrize(
    ("options", "share"),
    [({"start": 0.28}, 28), ({"start": 0.28, "discriminator_start": 0.0}, 28), ({"start": 0.0}, None)],
)
@pytest.mark.parametrize("discriminator", ["reuse", "fresh"])
def test_a_reused_discriminator_that_is_idle_at_the_beginning_is_said(
    whole, tmp_path, registry, caplog, options, share, discriminator
):
    losses = ADVERSARIAL | {"adversarial": ADVERSARIAL["adversarial"] | options}
    project = whole(tmp_path, post_train={"losses": losses, "discriminator": discriminator})
    check(Recipe.from_table(project.table), registry=registry)
    if share is None or discriminator == "fresh":
        assert not caplog.records
        return
    (record,) = caplog.records
    where = "stage.post_train.losses.adversarial.start"
    assert (
        f"{where}: the discriminator is reused, but idle in the first {share}% of the training" in record.getMessage()
    )


def test_a_fresh_discriminator_needs_none(trained, tmp_path):
    project = without_discriminator(trained, tmp_path, discriminator="fresh").run()
    assert "compare_decoders/sigma0.5_gfd_fashion_classifier" in project.results


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0.3, "optimizer": {"warmup": 0.5}}, "stage.post_train.optimizer.warmup: the learning rate is 0"),
        (
            {"batch_size": NUM_PAIRS + 1},
            f"stage.post_train.batch_size: a batch of {NUM_PAIRS + 1} images is larger than",
        ),
    ],
)
def test_a_batch_that_does_not_fit_the_pairs_is_refused_before_anything_runs(
    whole, one_stage, tmp_path, options, message, loaded
):
    project = one_stage("post_train", "pairs", **options) if loaded else whole(tmp_path, post_train=options)
    assert message in project.refusal()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"post_train": {"losses": {}}}, "stage.post_train: losses: there is no term"),
        (
            {"compare_decoders": {"metrics": {"fdr": {"use": "fdr", "networks": {"one": COLOURS["features"]}}}}},
            "stage.compare_decoders.metrics.fdr: it needs another set of real images",
        ),
        (
            {"compare_decoders": {"num_samples": 21, "metrics": {"kid": {"use": "kid", "subset_size": 21}}}},
            "stage.compare_decoders.metrics.kid: the reference: 20 images are too few for subsets of 21",
        ),
        (
            {"compare_decoders": {"metrics": {}}},
            "stage.compare_decoders: metrics: the first metric chooses the sigma to keep",
        ),
    ],
)
def test_missing_losses_or_metrics_are_refused(whole, tmp_path, options, message):
    assert message in whole(tmp_path, **options).refusal()


ALONE = {"adversarial": ADVERSARIAL["adversarial"] | {"start": 0.5}}
DEEP = {**ADVERSARIAL, "adversarial": {"use": "adversarial", "patch": {"layers": 4}}}


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (ALONE, "an adaptive weight needs an image term"),
        (DEEP, "a patch discriminator of 4 layers needs images of 48 pixels"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_before_anything_runs(whole, one_stage, tmp_path, losses, message, loaded):
    options = {"losses": losses, "discriminator": "fresh"}
    project = one_stage("post_train", "pairs", **options) if loaded else whole(tmp_path, post_train=options)
    assert f"stage.post_train.losses.adversarial: loss adversarial: {message}" in project.refusal()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["compare", "keep"])
def test_an_option_that_moved_to_compare_decoders_says_so(whole, tmp_path, key):
    message = whole(tmp_path, post_train={key: {}}).refusal()
    assert f"stage.post_train.{key}: unknown key '{key}'" in message
    assert "`compare_decoders`" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "lpips_vgg", "weights": "other.pth"}, "this file does not hold the weights of vgg"),
        ({"network": "features", "features": {"use": "inception", "weights": "other.pth"}}, "torch-fidelity's Incep"),
    ],
)
def test_a_file_without_the_weights_of_a_loss_is_refused_before_anything_runs(
    whole, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": torch.zeros(3, 2)}, "other.pth")
    project = whole(tmp_path / "runs", post_train={"losses": {"perceptual": {"use": "perceptual", **options}}})
    refusal = project.refusal()
    assert "stage.post_train.losses.perceptual: " in refusal
    assert message in refusal
    assert not project.out.exists()


def test_an_explicit_sigma_to_keep_needs_no_metric(whole, registry, tmp_path):
    project = whole(tmp_path, compare_decoders={"keep": 0.5, "metrics": {}})
    assert Recipe.from_table(project.table).resolve(registry).stages[-1].spec.config.keep == 0.5


def test_pairs_of_another_sigma_or_tokenizer_are_refused_by_name(one_stage, tmp_path):
    comparing = one_stage("compare_decoders", "generator", "decoders", keep=0.25)
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.25" in comparing.refusal()
    other = Project(tmp_path / "other", train_tokenizer={"epochs": 2, "losses": ADVERSARIAL}).run()
    project = one_stage("post_train", "pairs")
    project.table["load"]["tokenizer"] = str(other.folder)
    assert "these pairs were not made with the tokenizer in " in project.refusal()


def test_what_is_compared_by_default(whole, registry, tmp_path):
    project = whole(tmp_path)
    project.table["stage"][-1] = {"use": "compare_decoders"}
    compare = Recipe.from_table(project.table).resolve(registry).stages[-1].spec.config
    assert compare.num_samples == 5000
    assert set(compare.metrics) == {"gfd"}
    assert set(compare.tokenizer_metrics) == {"rfd", "pfd"}


def test_another_comparison_does_not_train_decoders_again(whole, post_trained, tmp_path):
    project = whole(tmp_path, compare_decoders={"num_samples": 30})
    shutil.copytree(post_trained.folder, project.folder)
    project.run()
    assert project.results["compare_decoders/before_gfd_fashion_classifier"].num_images == 30
    assert project.logged() == post_trained.logged()


@pytest.mark.parametrize(
    ("stage", "loaded"),
    [
        ("make_pairs", ["generator"]),
        ("post_train", ["pairs"]),
        ("compare_decoders", ["generator", "decoders"]),
    ],
)
def test_a_post_trained_tokenizer_is_refused(post_trained, tmp_path, stage, loaded):
    project = post_trained.later(tmp_path, [stage], load=("tokenizer", *loaded))
    assert "this tokenizer is already post-trained" in project.refusal()


def test_decoders_of_another_generator_are_refused(post_trained, one_stage, tmp_path):
    other = one_stage("train_generator", "latents", epochs=2)
    other.table["run"]["name"] = "other"
    project = one_stage("compare_decoders", "generator", "decoders")
    project.table["load"]["generator"] = str(other.run().folder)
    assert "these decoders were not trained with the generator in " in project.refusal()


def test_a_sigma_to_keep_without_pairs_is_refused_before_anything_runs(whole, tmp_path):
    project = whole(tmp_path, compare_decoders={"keep": 0.33})
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.33" in project.refusal()
    assert not list(tmp_path.iterdir())


def test_loaded_pairs_that_were_made_in_another_way_are_refused_by_option(one_stage):
    project = one_stage("post_train", "pairs")
    project.table["post_trainer"]["pairs"] = "latents"
    assert "the pairs were made with pairs = 'images', not 'latents'" in project.refusal()
    assert not project.folder.exists()


def test_processes_that_see_a_shared_folder_differently_train_the_same_decoders(tmp_path):
    one_and_two(Path(__file__).with_name("decoders_seen_otherwise.py"), tmp_path)
    assert [torch.load(file) for file in tmp_path.glob("*.pt")] == [True] * 3
