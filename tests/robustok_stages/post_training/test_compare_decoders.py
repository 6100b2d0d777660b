"""The comparison of decoders before and after post-training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen

from project import (
    BATCH_SIZE,
    POST_TRAINING,
    TO_SAMPLES,
    TRAIN_IMAGES,
    Project,
    changed,
    recipe_of,
    record_as_it_is,
    registry_with,
)
from robustok_core import Draws, Guidance, Recipe, Registry, Result, RobustokError, load_registry
from robustok_core.kinds.sample_metric import SampleMetric
from robustok_core.runs.accelerator import make_accelerator
from robustok_core.runs.components import COMPONENT_FILE, load_component
from robustok_core.runs.context import RunContext
from robustok_core.runs.folder import RunFolder
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import derive_seed
from robustok_core.values.images import to_uint8
from robustok_generators.maskgit import MaskGIT
from robustok_stages.post_training.comparison import Comparison, ComparisonConfig
from robustok_toolkit import generating
from robustok_toolkit.decoder_files import INDEX, Decoders, DecodersPromise
from robustok_training.batches import class_balanced_order


@frozen(kw_only=True)
class BrightnessConfig:
    """No options."""


class Brightness(SampleMetric):
    """The mean brightness of samples, higher is better, without a feature network."""

    Config = BrightnessConfig

    def __init__(self, config):
        pass

    def compute(self, samples, reference):
        return {"brightness": Result(samples.images.pixels.float().mean(), higher_is_better=True)}


def comparing(trained: Project, out: Path, **changes: Any) -> Project:
    """Post-training of the tokenizer and the generator of another project."""
    project = trained.later(out, POST_TRAINING, load=("tokenizer", "generator"))
    project.table["post_trainer"] = {"use": "decoder", "sampling": {"steps": 1}}
    project.stage("make_pairs").update(sigma=[0.9, 0.5], num_pairs=BATCH_SIZE, control=False)
    project.stage("compare_decoders").update(guidance={"scale": 1.0}, metrics={"b": {"use": "brightness"}})
    project.table = changed(project.table, changes)
    return project


def with_brightness() -> Registry:
    return registry_with(sample_metric={"brightness": Brightness})


def test_the_sigma_with_the_highest_value_is_kept_if_higher_is_better(trained, tmp_path):
    project = comparing(trained, tmp_path, post_train={"optimizer": {"learning_rate": 1e-2}})
    results = project.run(registry=with_brightness()).results
    values = {sigma: results[f"compare_decoders/sigma{sigma}_brightness"].value for sigma in (0.9, 0.5)}
    assert values[0.9] != values[0.5]
    assert results["compare_decoders/kept_sigma"].value == max(values, key=values.get)


@pytest.mark.parametrize("key", ["tokenizer_metrics", "pair_metrics"])
def test_what_cannot_be_measured_is_refused_before_anything_is_written(trained, tmp_path, key):
    project = comparing(trained, tmp_path, compare_decoders={key: {"pfd": {"use": "pfid", "deltas": [10**6]}}})
    with pytest.raises(RobustokError, match=rf"stage.compare_decoders.{key}.pfd: "):
        project.run(registry=with_brightness())
    assert not project.folder.exists()


NEAR_THE_VECTOR = {"use": "top_delta", "neighbours": "latent"}


@pytest.mark.parametrize(
    ("key", "metric", "message"),
    [
        (
            "tokenizer_metrics",
            {"use": "ifid", "interpolation": "mask", "neighbours": TRAIN_IMAGES + 1},
            f"needs at least neighbours = {TRAIN_IMAGES + 1} training images, and there are {TRAIN_IMAGES}",
        ),
        (
            "pair_metrics",
            {"use": "pfid", "perturbation": NEAR_THE_VECTOR},
            "top_delta needs the encoder's vectors before the quantizer, which pairs do not have",
        ),
    ],
)
def test_a_metric_that_asks_for_what_is_not_there_is_refused_before_anything_runs(
    trained, tmp_path, key, metric, message
):
    refusal = comparing(trained, tmp_path, compare_decoders={key: {"one": metric}}).refusal(registry=with_brightness())
    assert f"stage.compare_decoders.{key}.one: " in refusal
    assert message in refusal
    assert not list(tmp_path.iterdir())


def test_a_perturbation_near_the_encoders_vectors_is_measured_on_reconstructions(trained, tmp_path):
    metric = {"use": "pfid", "perturbation": NEAR_THE_VECTOR}
    comparing(trained, tmp_path, compare_decoders={"tokenizer_metrics": {"pfd": metric}}).check(with_brightness())


def test_every_decoder_is_measured_on_the_same_pairs_of_held_out_images(trained, tmp_path):
    project = comparing(
        trained,
        tmp_path,
        make_pairs={"sigma": [0.5], "control": True},
        post_train={"optimizer": {"learning_rate": 1e-2}},
        compare_decoders={"pair_metrics": {"psnr": {"use": "psnr"}}, "limit": 20, "batch_size": 7},
    )
    results = project.run(registry=with_brightness()).results
    before, generator = trained.component("tokenizer"), trained.component("generator")
    decoders = Decoders.read(project.artifact("decoders"))
    registry = load_registry()
    after = {f"sigma{sigma:g}": load_component(registry, folder) for sigma, folder in decoders.folders.items()}
    images = project.dataset().validation
    batch = images.load(class_balanced_order(images.labels)[:20].tolist())
    with torch.no_grad():
        sampling = MaskGIT.Sampling(steps=1)
        pairs = registry.build("post_trainer", {"use": "decoder", "sampling": sampling}).pair(
            before,
            generator,
            LatentBatch(
                latents=before.encode(batch.images).without_features(), labels=batch.labels, indices=batch.indices
            ),
            draws=Draws(seed=derive_seed(decoders.seed, "picture"), indices=batch.indices, total=len(images)),
            sigma=0.5,
        )
        assert (pairs.codes != before.encode(batch.images).codes).float().mean() > 0.2
        for label, tokenizer in {"before": before, **after}.items():
            error = (to_uint8(tokenizer.decode(pairs)).double() - to_uint8(batch.images).double()).square()
            expected = (10 * torch.log10(255**2 / error.mean(dim=(1, 2, 3)))).mean().item()
            result = results[f"compare_decoders/{label}_on_sigma0.5_psnr"]
            assert result.value == pytest.approx(expected, abs=0.02)
            assert result.details["pairs_sigma"] == 0.5
            assert result.details["num_images"] == 20
    clean, paired = (results[f"compare_decoders/before_{name}"].value for name in ("psnr", "on_sigma0.5_psnr"))
    assert paired < clean
    assert not [name for name in results if "on_sigma1" in name]


def test_a_process_without_a_sample_takes_part_in_the_comparison(trained, registry, tmp_path, monkeypatch):
    """Two samples on three processes: the third has none."""
    recipe = Recipe.from_table(recipe_of((*TO_SAMPLES, *POST_TRAINING))).resolve(registry)
    context = RunContext(
        recipe=recipe,
        registry=registry,
        accelerator=make_accelerator(recipe, tmp_path),
        stage="compare_decoders",
        folder=RunFolder(tmp_path),
        inputs={"generator": trained.artifact("generator")},
    )
    monkeypatch.setattr(generating, "world_size", lambda: 3)
    tokenizer = trained.component("tokenizer")
    options = ComparisonConfig(num_samples=2, sampling=None, metrics={}, tokenizer_metrics={}, pair_metrics={})
    compared = Comparison(context, options, tokenizer, {}, seed=0)
    shares = []
    for process in range(3):
        monkeypatch.setattr(generating, "rank", lambda process=process: process)
        latents = compared._sampled(Guidance())
        shares.append(compared._decoded(tokenizer, latents).pixels)
        assert latents.codes.dtype == torch.int64
    assert [len(share) for share in shares] == [1, 1, 0]
    assert shares[2].shape[1:] == shares[0].shape[1:]
    assert shares[2].dtype == shares[0].dtype


@pytest.mark.parametrize(("option", "other"), [("pairs", "latents"), ("sampling", {"steps": 3})])
def test_loaded_decoders_that_were_trained_in_another_way_are_refused_by_option(one_stage, option, other):
    project = one_stage("compare_decoders", "generator", "decoders")
    project.table["post_trainer"][option] = other
    assert f"the decoders were trained with {option} = " in project.refusal()
    assert not project.folder.exists()


def test_decoders_know_the_samplers_options_of_their_pairs(one_stage, post_trained, tmp_path):
    project = one_stage("post_train", "pairs", epochs=1)
    del project.table["post_trainer"]["sampling"]
    found = [Decoders.read(trained.artifact("decoders")).post_trainer for trained in (project.run(), post_trained)]
    assert found[0] == found[1]
    assert found[0]["sampling"]["steps"] == 2


def without(key: str, file: Path) -> None:
    """Writes a JSON file as an earlier version did, which had no such key."""
    content = json.loads(file.read_text())
    del content[key]
    file.write_text(json.dumps(content))


def test_decoders_of_an_earlier_version_do_not_say_how_they_were_trained(one_stage, post_trained, tmp_path):
    folder = shutil.copytree(post_trained.artifact("decoders"), tmp_path / "decoders")
    without("post_trainer", folder / INDEX)
    record_as_it_is(folder)
    project = one_stage("compare_decoders", "generator", "decoders")
    project.table["load"]["decoders"] = str(folder)
    project.table["post_trainer"]["pairs"] = "latents"
    project.check()


def test_decoders_that_do_not_say_whether_they_have_discriminators_do_not_promise_that_they_have_none(
    post_trained, registry, tmp_path
):
    folder = shutil.copytree(post_trained.artifact("decoders"), tmp_path / "decoders")
    assert DecodersPromise.of_artifact(folder, registry).opponents == ["adversarial"]
    without("opponents", folder / "sigma1" / COMPONENT_FILE)
    assert DecodersPromise.of_artifact(folder, registry).opponents is None
