"""Samples compared with real images, and the whole pipeline from images to a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluations import DISTANCE, EVALUATION, FEATURES, METRICS, STAGE, evaluating
from project import (
    CONTINUOUS,
    FLOW,
    NUM_SAMPLES,
    NUM_TOKENS,
    TO_SAMPLES,
    TRAIN_IMAGES,
    VALIDATION_IMAGES,
    WIDTH,
    Project,
    contents,
)
from robustok_core import Latents
from robustok_core.runs.results import read_results
from robustok_toolkit.generating import decode_to_uint8
from robustok_toolkit.latent_files import LatentRows

LOADED = ("tokenizer", "generator")
NUM_FEATURES = 96  # of FEATURES
PRECISION, RECALL = (f"{STAGE}/{name}_fashion_classifier" for name in ("precision", "recall"))


def test_from_images_to_numbers_and_a_second_call_repeats_nothing(tmp_path):
    against_training = {**EVALUATION, "name": "against_training", "reference": "train"}
    project = Project(tmp_path, [*TO_SAMPLES, EVALUATION, against_training]).run()
    results = project.results
    held_out, training = results[DISTANCE], results["against_training/gfd_fashion_classifier"]
    assert held_out.num_images == NUM_SAMPLES
    assert held_out.value > 0
    assert held_out.value != training.value
    assert (held_out.num_reference, training.num_reference) == (VALIDATION_IMAGES, TRAIN_IMAGES)
    assert 0 <= results[PRECISION].value <= 1
    assert f"evaluate_generator: {NUM_SAMPLES} images are too few for {NUM_FEATURES} features" in project.printed
    files = {file: file.stat().st_mtime_ns for file in (project.folder / "artifacts").rglob("*") if file.is_file()}
    assert project.run().results == results
    assert project.printed.count("done before, unchanged") == len(project.table["stage"])
    assert files == {file: file.stat().st_mtime_ns for file in files}


def test_a_continuous_space_works_the_same(tmp_path):
    """The generator gets the statistics of the latents; the vectors that it samples are stored and can be decoded."""
    measure = {"num_samples": 20, "metrics": METRICS, "sampling": {"steps": 2}}
    project = Project(
        tmp_path,
        [*TO_SAMPLES, EVALUATION],
        **CONTINUOUS,
        generator=FLOW,
        train_generator={"ema_decay": 0.5, "measure": measure},
    ).run()
    assert project.results[DISTANCE].num_images == NUM_SAMPLES
    tokenizer, generator = project.component("tokenizer"), project.component("generator")
    rows = LatentRows(project.artifact("latents"), "train")
    assert torch.equal(generator.latent_mean, rows.mean)
    assert torch.equal(generator.latent_std, rows.std)
    vectors = torch.from_numpy(np.load(project.artifact("samples") / "vectors.npy"))
    assert vectors.shape == (NUM_SAMPLES, NUM_TOKENS, WIDTH)
    pictures = decode_to_uint8(tokenizer, Latents(vectors=vectors)).permute(0, 2, 3, 1).numpy().astype(int)
    with np.load(project.artifact("samples") / "samples.npz") as file:
        assert (abs(file["arr_0"] - pictures) <= 1).all()


def test_two_processes_make_the_files_and_the_numbers_of_one(trained, tmp_path):
    project = trained.later(tmp_path / "two", ["tokenize", "sample", EVALUATION], load=LOADED).run_on_two()
    assert contents(trained.artifact("latents")) == contents(project.artifact("latents"))
    one, two = trained.artifact("samples"), project.artifact("samples")
    for name in ("codes.npy", "samples.npz", "grid.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    found = {name: result for name, result in read_results(project.folder).items() if STAGE in name}
    expected = evaluating(trained, tmp_path / "one").run().results
    assert set(found) == set(expected)
    for name, result in found.items():
        one = expected[name]
        assert result.value == pytest.approx(one.value, rel=1e-4)
        assert (result.num_images, result.num_reference) == (one.num_images, one.num_reference)


def test_the_distance_is_that_of_the_features_of_the_two_sets(trained, registry, tmp_path):
    """Computed with numpy and scipy, except for the network."""
    import scipy.linalg

    with np.load(trained.artifact("samples") / "samples.npz") as file:
        samples = torch.from_numpy(file["arr_0"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    real = trained.dataset().validation.load(range(VALIDATION_IMAGES)).images
    network = registry.build("features", FEATURES)
    with torch.no_grad():
        one, two = (network(images).double().numpy() for images in (samples, real))
    a, b = np.cov(one.T), np.cov(two.T)
    root = scipy.linalg.sqrtm(a @ b + 1e-12 * np.eye(len(a))).real
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    found = evaluating(trained, tmp_path).run().results[DISTANCE].value
    assert found == pytest.approx(expected, rel=2e-3)


def test_the_distance_of_samples_to_themselves_is_0(trained, tmp_path):
    file = trained.artifact("samples") / "samples.npz"
    results = evaluating(trained, tmp_path, reference=str(file)).run().results
    assert results[DISTANCE].value == pytest.approx(0.0, abs=1e-6)
    assert results[PRECISION].value == results[RECALL].value == 1.0


def test_a_limit_takes_images_of_every_class(trained, tmp_path):
    ten, all_images = (
        evaluating(trained, tmp_path / name, **limit).run().results[DISTANCE]
        for name, limit in (("ten", {"limit": 10}), ("all", {}))
    )
    assert ten.value != all_images.value
    assert (ten.num_reference, all_images.num_reference) == (10, VALIDATION_IMAGES)
