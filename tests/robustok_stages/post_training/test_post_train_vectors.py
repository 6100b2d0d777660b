"""Post-training with continuous latents: pairs, decoders, what changes and what must not, overflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from processes import killed_in_a_shard
from project import BATCH_SIZE, CONTINUOUS, FLOW, NUM_PAIRS, POST_TRAINING, TRAIN_IMAGES, Project, contents
from robustok_core import Tokenizer
from robustok_core.errors import RunError
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_toolkit.latent_files import LatentRows
from robustok_toolkit.pair_files import PairRows

SAMPLING = {"method": "heun", "steps": 2}
COMPARE = {"guidance": {"scale": 1.0}, "sampling": SAMPLING, "pictures": 2}
STAGES = ("train_tokenizer", "tokenize", "train_generator", *POST_TRAINING)
POST_TRAINER = {"use": "decoder", "pairs": "latents", "sampling": SAMPLING}


@pytest.fixture(scope="module")
def post_trained(tmp_path_factory) -> Project:
    """From a continuous tokenizer to a post-trained one; not to be changed."""
    out = tmp_path_factory.mktemp("vectors")
    changes = {"generator": FLOW, "post_trainer": POST_TRAINER, "compare_decoders": COMPARE}
    return Project(out, STAGES, **CONTINUOUS, **changes).run()


def later(post_trained: Project, out: Path, stage: str | dict[str, Any]) -> Project:
    """A project of one stage that loads the tokenizer of main training and the generator."""
    project = post_trained.later(out, [stage], load=("tokenizer", "generator"))
    project.table["load"]["tokenizer"] = str(post_trained.artifact("tokenizer", stage="train_tokenizer"))
    return project


def first_tokenizer(post_trained: Project) -> Tokenizer:
    """Main training's."""
    return post_trained.component("tokenizer", stage="train_tokenizer")


def pairs_of(project: Project, sigma: float) -> np.ndarray:
    """(P, N, D) float32."""
    pairs = project.artifact("pairs")
    parts = read_json(pairs / "latents.json")["splits"][f"sigma{sigma:g}"]["parts"]
    return np.concatenate([np.load(pairs / "parts" / part["file"]) for part in parts])[:, 0]


def test_the_controls_pairs_are_the_latents_of_their_images(post_trained):
    found = pairs_of(post_trained, 1.0)
    rows = np.load(post_trained.artifact("pairs") / "rows.npy")
    assert found.dtype == np.float32
    assert len(set(rows.tolist())) == NUM_PAIRS
    images, tokenizer = post_trained.dataset().train, first_tokenizer(post_trained)
    with torch.no_grad():
        batches = [
            images.load(rows[start : start + BATCH_SIZE].tolist()).images for start in range(0, NUM_PAIRS, BATCH_SIZE)
        ]
        own = torch.cat([tokenizer.encode(batch).vectors for batch in batches])
    assert np.array_equal(found, own.numpy())
    # encoded in different batches, which may change the order of sums
    cached = LatentRows(post_trained.artifact("latents"), "train").load(rows.tolist()).latents.vectors
    torch.testing.assert_close(torch.from_numpy(found), cached)


def test_a_pair_is_its_vectors_and_the_image_at_its_stored_index(post_trained, tmp_path):
    pairs = shutil.copytree(post_trained.artifact("pairs"), tmp_path / "pairs")
    places = np.arange(TRAIN_IMAGES)[: -NUM_PAIRS - 1 : -1]  # the run's own are 0, 1, ...: each would be its own place
    np.save(pairs / "rows.npy", places)
    images = post_trained.dataset().train
    fingerprint = latent_fingerprint(first_tokenizer(post_trained))
    batch = PairRows(pairs, 0.5, images, tokenizer=fingerprint).load([47, 5])
    assert np.array_equal(batch.latents.vectors.numpy(), pairs_of(post_trained, 0.5)[[47, 5]])
    assert torch.equal(batch.images, images.load(places[[47, 5]].tolist()).images)


def test_what_changed_is_the_distance_from_the_real_vectors_over_their_norm(post_trained):
    results = post_trained.results
    real, made = (pairs_of(post_trained, sigma).reshape(NUM_PAIRS, -1).astype(np.float64) for sigma in (1.0, 0.5))
    ratios = np.sqrt(((made - real) ** 2).sum(1)) / np.sqrt((real**2).sum(1))
    assert results["make_pairs/changed_sigma1"].value == 0.0
    assert results["make_pairs/changed_sigma0.5"].value == pytest.approx(ratios.mean(), rel=1e-5)
    assert ratios.min() > 0.05


def test_only_the_decoder_changes_and_all_of_it(post_trained):
    newest = post_trained.artifact("tokenizer")
    assert newest == post_trained.artifact("tokenizer", stage="compare_decoders")
    tokenizer = first_tokenizer(post_trained)
    assert latent_fingerprint(post_trained.component("tokenizer")) == latent_fingerprint(tokenizer)
    behind = {id(parameter) for module in tokenizer.decoder for parameter in module.parameters()}
    names = {name for name, parameter in tokenizer.named_parameters() if id(parameter) in behind}
    before, after = tokenizer.state_dict(), read_tensors(newest / "model.safetensors")
    assert {name for name in after if not torch.equal(before[name], after[name])} == names
    assert 0 < len(names) < len(before)


def test_results_of_before_and_after_are_comparable(post_trained):
    results = post_trained.results
    arms = ("before", "sigma1", "sigma0.5")
    for name in ("gfd_fashion_classifier", "psnr"):
        values = [results[f"compare_decoders/{arm}_{name}"].value for arm in arms]
        assert np.isfinite(values).all()
        assert len(set(values)) == 3, "each arm is another decoder"
    assert results["compare_decoders/kept_sigma"].value == 0.5
    assert not [name for name in results if "guided" in name], "of scale 1"
    assert {file.name for file in post_trained.artifact("comparison").glob("*.png")} == {
        "samples.png",
        "sigma.png",
    }


def test_pairs_are_bit_identical_after_a_kill(post_trained, tmp_path):
    """Two files per shard, three shards per sigma: the control and one shard of 0.5 are complete at the tenth file."""
    project = later(post_trained, tmp_path, "make_pairs")
    killed_in_a_shard(project.run, 10)
    kept = {file.name: file.stat().st_ino for file in (project.folder / "checkpoints").rglob("sigma*.vectors.npy")}
    assert len(kept) == 4
    pairs = project.run().artifact("pairs")
    assert contents(pairs / "parts") == contents(post_trained.artifact("pairs") / "parts")
    assert {name: (pairs / "parts" / name).stat().st_ino for name in kept} == kept
    changed = "make_pairs/changed_sigma0.5"
    assert project.results[changed] == post_trained.results[changed]


@pytest.mark.parametrize(
    ("stage", "pairs", "where"),
    [
        ("sample", "latents", "stage sample"),
        ("make_pairs", "latents", "stage make_pairs"),
        ("make_pairs", "images", "post_trainer"),
    ],
)
def test_vectors_that_guidance_makes_overflow_are_refused_before_a_shard_is_written(
    post_trained, tmp_path, stage, pairs, where
):
    guidance = {"scale": 1e30}
    stages = {
        "sample": {"use": "sample", "num_samples": 10, "guidance": guidance, "sampling": SAMPLING},
        "make_pairs": {"use": "make_pairs", "sigma": [0.5], "control": False, "num_pairs": 16, "batch_size": 16},
    }
    project = later(post_trained, tmp_path, stages[stage])
    project.table["post_trainer"] = POST_TRAINER | {"guidance": guidance, "pairs": pairs}
    with pytest.raises(RunError, match=f"^{where}: the generator returned vectors .* not finite .*guidance.scale"):
        project.run()
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".npy", ".npz", ".png")]
