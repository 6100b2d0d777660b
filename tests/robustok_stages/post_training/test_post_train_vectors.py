"""Post-training with continuous latents: pairs, decoders, what changes and what must not, overflow."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustok_core import Recipe, Registry, Tokenizer, run
from robustok_core.errors import RunError
from robustok_core.runs.components import load_component
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.results import read_results
from robustok_toolkit.latent_files import LatentRows
from robustok_toolkit.pair_files import PairRows

SAMPLING = {"method": "heun", "steps": 2}
COMPARE = {
    "num_samples": 20,
    "guidance": {"scale": 1.0},
    "sampling": SAMPLING,
    "metrics": {"gfd": {"use": "frechet", "features": {"use": "fashion_classifier"}}},
    "tokenizer_metrics": {"psnr": {"use": "psnr"}},
    "pictures": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """The recipe from a continuous tokenizer to a post-trained one, and its run folder; must not be changed."""
    table = continuous(recipe_of(TO_SAMPLES))
    table["generator"] = {"use": "flow_transformer", "width": 16, "depth": 1, "num_heads": 2}
    table["post_trainer"] = {"use": "decoder", "pairs": "latents", "sampling": SAMPLING}
    table["stage"][-1:] = [  # in place of `sample`
        {"use": "make_pairs", "sigma": [0.5], "num_pairs": 48, "batch_size": 16, "part_size": 16},
        {"use": "post_train", "epochs": 2, "batch_size": 16, "log_every": 1},
        {"use": "compare_decoders", **COMPARE},
    ]
    out = tmp_path_factory.mktemp("vectors")
    run(Recipe.from_table(table), out=out)
    return table, out / table["run"]["name"]


@pytest.fixture
def part_of_trained(trained) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A recipe of one stage, which loads the tokenizer of main training and the generator."""

    def part_of_trained(stage: dict[str, Any]) -> dict[str, Any]:
        table, folder = copy.deepcopy(trained[0]), trained[1]
        del table["tokenizer"], table["generator"]
        load = {"tokenizer": artifact(folder, "tokenizer", "train_tokenizer"), "generator": folder}
        return {**table, "load": {name: str(place) for name, place in load.items()}, "stage": [stage]}

    return part_of_trained


def artifact(folder: Path, name: str, stage: str) -> Path:
    return folder / "artifacts" / f"{name}-{read_json(folder / 'run.json')['current'][stage]}"


def first_tokenizer(folder: Path, registry: Registry) -> Tokenizer:
    """Main training's."""
    return load_component(registry, artifact(folder, "tokenizer", "train_tokenizer"))


def pairs_of(folder: Path, sigma: float) -> np.ndarray:
    """(48, 16, 4) float32."""
    pairs = find_artifact(folder, "pairs")
    parts = read_json(pairs / "latents.json")["splits"][f"sigma{sigma:g}"]["parts"]
    return np.concatenate([np.load(pairs / "parts" / part["file"]) for part in parts])[:, 0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_controls_pairs_are_the_latents_of_their_images(trained, registry):
    table, folder = trained
    found = pairs_of(folder, 1.0)
    rows = np.load(find_artifact(folder, "pairs") / "rows.npy")
    assert found.dtype == np.float32
    assert len(set(rows.tolist())) == 48
    images, tokenizer = registry.build("dataset", table["data"]).train, first_tokenizer(folder, registry)
    with torch.no_grad():
        batches = [images.load(rows[start : start + 16].tolist()).images for start in (0, 16, 32)]
        own = torch.cat([tokenizer.encode(batch).vectors for batch in batches])
    assert np.array_equal(found, own.numpy())
    # encoded in different batches, which may change the order of sums
    cached = LatentRows(find_artifact(folder, "latents"), "train").load(rows.tolist()).latents.vectors
    torch.testing.assert_close(torch.from_numpy(found), cached)


def test_a_pair_is_its_vectors_and_the_image_at_its_stored_index(trained, registry, tmp_path):
    table, folder = trained
    pairs = shutil.copytree(find_artifact(folder, "pairs"), tmp_path / "pairs")
    places = np.arange(79, 31, -1)  # the run's own are 0 ... 47: each would be its own place
    np.save(pairs / "rows.npy", places)
    images = registry.build("dataset", table["data"]).train
    fingerprint = latent_fingerprint(first_tokenizer(folder, registry))
    batch = PairRows(pairs, 0.5, images, tokenizer=fingerprint).load([47, 5])
    assert np.array_equal(batch.latents.vectors.numpy(), pairs_of(folder, 0.5)[[47, 5]])
    assert torch.equal(batch.images, images.load(places[[47, 5]].tolist()).images)


def test_what_changed_is_the_distance_from_the_real_vectors_over_their_norm(trained):
    _, folder = trained
    results = read_results(folder)
    real, made = (pairs_of(folder, sigma).reshape(48, -1).astype(np.float64) for sigma in (1.0, 0.5))
    ratios = np.sqrt(((made - real) ** 2).sum(1)) / np.sqrt((real**2).sum(1))
    assert results["make_pairs/changed_sigma1"].value == 0.0
    assert results["make_pairs/changed_sigma0.5"].value == pytest.approx(ratios.mean(), rel=1e-5)
    assert ratios.min() > 0.05


def test_only_the_decoder_changes_and_all_of_it(trained, registry):
    _, folder = trained
    newest = find_artifact(folder, "tokenizer")
    assert newest == artifact(folder, "tokenizer", "compare_decoders")
    tokenizer = first_tokenizer(folder, registry)
    assert latent_fingerprint(load_component(registry, newest)) == latent_fingerprint(tokenizer)
    behind = {id(parameter) for module in tokenizer.decoder for parameter in module.parameters()}
    names = {name for name, parameter in tokenizer.named_parameters() if id(parameter) in behind}
    before, after = tokenizer.state_dict(), read_tensors(newest / "model.safetensors")
    assert {name for name in after if not torch.equal(before[name], after[name])} == names
    assert 0 < len(names) < len(before)


def test_results_of_before_and_after_are_comparable(trained):
    _, folder = trained
    results = read_results(folder)
    arms = ("before", "sigma1", "sigma0.5")
    for name in ("gfd_fashion_classifier", "psnr"):
        values = [results[f"compare_decoders/{arm}_{name}"].value for arm in arms]
        assert np.isfinite(values).all()
        assert len(set(values)) == 3, "each arm is another decoder"
    assert results["compare_decoders/kept_sigma"].value == 0.5
    assert not [name for name in results if "guided" in name], "of scale 1"
    assert {file.name for file in artifact(folder, "comparison", "compare_decoders").glob("*.png")} == {
        "samples.png",
        "sigma.png",
    }


def test_pairs_are_bit_identical_after_a_kill(trained, part_of_trained, tmp_path):
    """Two files per shard, three shards per sigma: the control and one shard of 0.5 are complete at the tenth file."""
    table, folder = part_of_trained(trained[0]["stage"][-3]), tmp_path / "tiny"
    dying(lambda: run(Recipe.from_table(table), out=tmp_path), 10)
    kept = {file.name: file.stat().st_ino for file in (folder / "checkpoints").rglob("sigma*.vectors.npy")}
    assert len(kept) == 4
    run(Recipe.from_table(table), out=tmp_path)
    pairs = find_artifact(folder, "pairs")
    assert contents(pairs / "parts") == contents(find_artifact(trained[1], "pairs") / "parts")
    assert {name: (pairs / "parts" / name).stat().st_ino for name in kept} == kept
    changed = "make_pairs/changed_sigma0.5"
    assert read_json(folder / "results.json")[changed] == read_json(trained[1] / "results.json")[changed]


@pytest.mark.parametrize(
    ("stage", "pairs", "where"),
    [
        ("sample", "latents", "stage sample"),
        ("make_pairs", "latents", "stage make_pairs"),
        ("make_pairs", "images", "post_trainer"),
    ],
)
def test_vectors_that_guidance_makes_overflow_are_refused_before_a_shard_is_written(
    part_of_trained, tmp_path, stage, pairs, where
):
    guidance = {"scale": 1e30}
    stages = {
        "sample": {"use": "sample", "num_samples": 10, "guidance": guidance, "sampling": SAMPLING},
        "make_pairs": {"use": "make_pairs", "sigma": [0.5], "control": False, "num_pairs": 16, "batch_size": 16},
    }
    table = part_of_trained(stages[stage])
    table["post_trainer"] |= {"guidance": guidance, "pairs": pairs}
    with pytest.raises(RunError, match=f"^{where}: the generator returned vectors .* not finite .*guidance.scale"):
        run(Recipe.from_table(table), out=tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".npy", ".npz", ".png")]
