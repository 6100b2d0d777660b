from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from project import CONTINUOUS, FLOW, TO_SAMPLES, Project
from robustok_stages.generator.latent_mmd import KernelDistance, in_proportion
from robustok_toolkit.image_files import NpzImages
from robustok_toolkit.trained_tokenizer import load_tokenizer
from robustok_training.batches import class_balanced_order


def test_the_distance_is_the_unbiased_one_of_its_definition():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(5, 3, generator=generator), torch.randn(4, 3, generator=generator) + 1
    width = torch.tensor(2.0)

    def kernel(a, b) -> float:
        squared = sum((float(p) - float(q)) ** 2 for p, q in zip(a, b, strict=True))
        return sum(math.exp(-squared / (2.0 * factor)) for factor in (0.25, 0.5, 1, 2, 4)) / 5

    def mean(some, others, *, distinct: bool) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(some) for j, b in enumerate(others) if not (distinct and i == j)]
        return sum(pairs) / len(pairs)

    expected = mean(one, one, distinct=True) + mean(other, other, distinct=True) - 2 * mean(one, other, distinct=False)
    assert KernelDistance(one, width).to(other) == pytest.approx(expected, abs=1e-5)


def test_it_suggests_the_strength_with_which_the_samples_were_perturbed(trained, tmp_path):
    """Samples that are held-out latents, perturbed with another seed at alpha = 0.6, are closest to those at 0.6."""
    import shutil

    samples = shutil.copytree(trained.artifact("samples"), tmp_path / "samples")
    (samples / "manifest.json").unlink()
    tokenizer, images = load_tokenizer(trained.folder), trained.dataset().validation
    real = tokenizer.encode_images(images.load(class_balanced_order(images.labels).tolist()).images)
    codes = tokenizer.perturbed(real, "top_delta", alpha=0.6, delta=31, seed=1).codes.numpy()
    np.save(samples / "codes.npy", codes.astype(np.uint16))
    stage = {"use": "latent_mmd", "alphas": [0.0, 0.3, 0.6, 1.0], "delta": 31}
    later = Project(tmp_path / "later", [stage], load={"tokenizer": trained.folder, "samples": samples}).run()
    assert later.results["latent_mmd/suggested_alpha"].value == 0.6
    found = later.results["latent_mmd/latent_mmd"]
    assert found.value == min(found.details["by_alpha"].values())
    assert found.details["delta"] == 31


def test_it_measures_vectors_too(tmp_path):
    stages = (*TO_SAMPLES, {"use": "latent_mmd", "alphas": [0.0, 1.0], "tau": 2.0})
    project = Project(tmp_path, stages, **CONTINUOUS, generator=FLOW).run()
    tokenizer, images = load_tokenizer(project.folder), project.dataset().validation
    samples, rows = in_proportion(NpzImages(project.artifact("samples") / "samples.npz").labels, images.labels, 1000)
    generated = torch.from_numpy(np.load(project.artifact("samples") / "vectors.npy"))[samples].flatten(1).float()
    real = tokenizer.encode_images(images.load(rows.tolist()).images)
    noisy = tokenizer.perturbed(real, "gaussian", scale="relative", strength="fixed", tau=2.0, seed=8)
    width = torch.cdist(generated, real.vectors.flatten(1)).square().median()
    found = project.results["latent_mmd/latent_mmd"]
    assert (found.num_images, found.num_reference) == (len(samples), len(rows))
    for alpha, latents, close in (("0", real, 1e-4), ("1", noisy, 0.05)):  # other noise, so not the same number
        expected = KernelDistance(generated, width).to(latents.vectors.flatten(1))
        assert found.details["by_alpha"][alpha] == pytest.approx(expected, abs=close)


def test_samples_have_the_shares_of_the_classes_of_the_images():
    images = torch.tensor([0] * 12 + [1] * 54 + [2] * 30 + [4] * 9)  # class 4 was not sampled, no image has class 3
    in_turn = torch.arange(400) % 4
    samples, rows = in_proportion(in_turn, images, 1000)
    assert torch.bincount(images[rows]).tolist() == [12, 54, 30]
    assert torch.bincount(in_turn[samples]).tolist() == [22, 100, 55]  # 100 / 54 of each
    samples, rows = in_proportion(in_turn, images, 20)
    of_images, of_samples = torch.bincount(images[rows]), torch.bincount(in_turn[samples])
    assert of_images.tolist() == of_samples.tolist()
    assert sorted(of_images.tolist()) == [6, 7, 7]
    few, rows = in_proportion(in_turn[:8], images, 1000)
    assert torch.bincount(in_turn[few]).tolist() == [1, 2, 1]
    assert [len(found) for found in in_proportion(torch.full((5,), 3), images, 1000)] == [0, 0]


def test_equal_shares_take_the_first_samples():
    images = torch.arange(10).repeat(100)
    samples, rows = in_proportion(torch.arange(10).repeat(500), images, 1000)
    assert samples.tolist() == list(range(1000))
    assert rows.tolist() == class_balanced_order(images).tolist()


def test_more_codes_than_there_are_cannot_replace_one(tmp_path):
    project = Project(tmp_path, (*TO_SAMPLES, {"use": "latent_mmd", "delta": 1000}))
    assert "delta is 1000, but the codebook has 32 codes" in project.refusal()


def test_a_strength_of_the_other_kind_of_latents_is_refused(tmp_path):
    of_codes = Project(tmp_path, (*TO_SAMPLES, {"use": "latent_mmd", "tau": 0.7}))
    assert "stage.latent_mmd.tau: it is of vectors, and this latent space has codes" in of_codes.refusal()
    of_vectors = Project(tmp_path, (*TO_SAMPLES, {"use": "latent_mmd", "delta": 8}), **CONTINUOUS, generator=FLOW)
    assert "stage.latent_mmd.delta: it is of codes, and this latent space has vectors" in of_vectors.refusal()
