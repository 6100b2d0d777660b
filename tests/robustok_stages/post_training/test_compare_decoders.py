"""The comparison of decoders before and after post-training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen

from project import BATCH_SIZE, POST_TRAINING, TO_SAMPLES, Project, changed, recipe_of, registry_with
from robustok_core import Guidance, Recipe, Registry, Result, RobustokError
from robustok_core.kinds.sample_metric import SampleMetric
from robustok_core.runs.accelerator import make_accelerator
from robustok_core.runs.context import RunContext
from robustok_core.runs.folder import RunFolder
from robustok_stages.post_training.comparison import Comparison, ComparisonConfig, balanced_halves
from robustok_toolkit import generating
from robustok_training.batches import epoch_order


@pytest.mark.parametrize(("classes", "each"), [(10, 100), (1000, 5), (3, 30), (7, 3)])
def test_both_halves_of_the_held_out_images_hold_every_class(classes, each):
    labels = torch.arange(classes).repeat_interleave(each)[epoch_order(classes * each, seed=0, epoch=0)]
    halves = balanced_halves(labels)
    assert torch.cat(halves).sort().values.tolist() == list(range(len(labels)))
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    first, second = (torch.bincount(labels[rows], minlength=classes) for rows in halves)
    assert int((first - second).abs().max()) <= 1


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


def test_what_cannot_be_measured_is_refused_before_anything_is_written(trained, tmp_path):
    project = comparing(
        trained, tmp_path, compare_decoders={"tokenizer_metrics": {"pfd": {"use": "pfid", "deltas": [10**6]}}}
    )
    with pytest.raises(RobustokError, match=r"stage.compare_decoders.tokenizer_metrics.pfd: "):
        project.run(registry=with_brightness())
    assert not project.folder.exists()


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
    options = ComparisonConfig(num_samples=2, sampling=None, metrics={}, tokenizer_metrics={})
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
