"""Samples compared with real images, and the whole pipeline from images to a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from PIL import Image

from project import (
    BATCH_SIZE,
    COLOURS,
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
    registry_with,
)
from robustok_core import (
    Latents,
    Result,
    RobustokError,
    SampleMetric,
    Spec,
)
from robustok_core.kinds.features import Features
from robustok_core.runs.results import read_results
from robustok_core.values.spec import component
from robustok_toolkit.generating import decode_to_uint8
from robustok_toolkit.latent_files import LatentRows

LOADED = ("tokenizer", "generator")
FEATURES = {"use": "fashion_classifier"}
NUM_FEATURES = 96  # of that network
METRICS = {
    "gfd": COLOURS,
    "precision_recall": {"use": "precision_recall", "features": FEATURES},
}
EVALUATION = {"use": "evaluate_generator", "metrics": METRICS, "batch_size": BATCH_SIZE}


STAGE = "evaluate_generator"
DISTANCE, PRECISION, RECALL = (f"{STAGE}/{name}_fashion_classifier" for name in ("gfd", "precision", "recall"))


def evaluating(trained: Project, out: Path, **options: Any) -> Project:
    """A project that evaluates the samples of another."""
    return trained.later(out, [EVALUATION | options], load=("samples",))


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


def test_a_missing_reference_is_refused_before_anything_is_written(trained, tmp_path):
    with pytest.raises(RobustokError, match=r"stage.evaluate_generator.reference: 'valid' is neither 'validation' nor"):
        evaluating(trained, tmp_path, reference="valid").run()
    assert not list(tmp_path.iterdir())


def test_a_reference_file_of_something_else_is_refused_before_anything_is_written(trained, tmp_path):
    file = tmp_path / "floats.npz"
    np.savez(file, arr_0=np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(RobustokError, match=r"stage.evaluate_generator.reference: .*images must be uint8"):
        evaluating(trained, tmp_path / "runs", reference=str(file)).run()
    assert not (tmp_path / "runs").exists()


TOO_MANY = [
    (
        {"kid": {"use": "kid", "subset_size": 30}},
        {},
        "metrics.kid: the samples: 24 images are too few for subsets of 30",
    ),
    (
        {"kid": {"use": "kid", "subset_size": 20}},
        {"limit": 15},
        "metrics.kid: the reference: 15 images are too few for",
    ),
    (
        {"pr": {"use": "precision_recall", "neighbours": 24}},
        {},
        "metrics.pr: the samples: 24 images are too few for 24 neigh",
    ),
    ({"is": {"use": "inception_score", "splits": 25}}, {}, "metrics.is: the samples: 24 samples are too few for 25"),
]


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(("metrics", "options", "message"), TOO_MANY)
def test_metrics_that_need_more_images_than_planned_are_refused_before_anything_is_written(
    trained, tmp_path, metrics, options, message, loaded
):
    stage = EVALUATION | {"metrics": metrics} | options
    project = evaluating(trained, tmp_path, **stage) if loaded else Project(tmp_path, [*TO_SAMPLES, stage])
    with pytest.raises(RobustokError, match=f"stage.evaluate_generator.{message}"):
        project.run()
    assert not list(tmp_path.iterdir())


FDR = {"fdr": {"use": "fdr", "networks": {"one": FEATURES}}}


def test_fdr_compares_with_the_held_out_images_of_the_same_data(trained, tmp_path):
    results = evaluating(trained, tmp_path, reference="train", metrics=FDR).run().results
    fdr, of_held_out = (results[f"{STAGE}/{name}_fashion_classifier"] for name in ("fdr", "fd_val"))
    gfd = evaluating(trained, tmp_path / "gfd", reference="train").run().results[DISTANCE]
    assert fdr.num_images == NUM_SAMPLES  # as many held-out images, though there are more
    assert fdr.num_reference == TRAIN_IMAGES
    assert fdr.value == pytest.approx(gfd.value / of_held_out.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "it needs two sets of real images, but 'validation' is the reference, too"),
        ({"held_out": "nowhere"}, "'nowhere' is neither 'validation' nor 'train' nor a file or folder"),
    ],
)
def test_fdr_without_held_out_images_is_refused_before_anything_is_written(trained, tmp_path, options, message):
    project = evaluating(trained, tmp_path, metrics={"fdr": FDR["fdr"] | options})
    with pytest.raises(RobustokError, match=f"stage.evaluate_generator.metrics.fdr: {message}"):
        project.run()
    assert not list(tmp_path.iterdir())


def test_held_out_images_of_another_size_are_refused_before_anything_is_written(trained, tmp_path):
    file = tmp_path / "held_out.npz"
    np.savez(file, arr_0=np.zeros((8, 48, 48, 3), np.uint8))
    project = evaluating(trained, tmp_path / "runs", metrics={"fdr": FDR["fdr"] | {"held_out": str(file)}})
    message = f"metrics.fdr: the images of {file} have 48 x 48 pixels, those of the reference 32 x 32"
    assert message in project.refusal()
    assert not project.out.exists()


@pytest.mark.parametrize("arrays", [{}, {"arr_0": np.zeros((8, 32, 32, 3), np.uint8)}])
def test_held_out_images_of_unknown_number_are_refused_before_anything_is_written(trained, tmp_path, arrays):
    file = tmp_path / "held_out.npz"
    np.savez(file, mu=np.zeros(3), sigma=np.eye(3), **arrays)
    project = evaluating(trained, tmp_path / "runs", metrics={"fdr": FDR["fdr"] | {"held_out": str(file)}})
    with pytest.raises(RobustokError, match=f"{file}: mu and sigma are of an unknown number of images"):
        project.run()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arrays", [{}, {"arr_0": np.zeros((8, 32, 32, 3), np.uint8)}])
def test_the_images_of_a_reference_file_are_counted_and_statistics_are_none(trained, tmp_path, arrays):
    file = tmp_path / "reference.npz"
    np.savez(file, mu=np.zeros(3), sigma=np.eye(3), **arrays)
    metrics = {"pr": {"use": "precision_recall", "neighbours": 9}}
    message = f"the reference: {len(arrays.get('arr_0', ()))} images are too few for 9 neighbours each"
    with pytest.raises(RobustokError, match=message) as caught:
        evaluating(trained, tmp_path / "runs", metrics=metrics, reference=str(file)).run()
    assert ("statistics are not enough" in caught.value.hint) == (not arrays)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("measuring", [False, True])
def test_a_limit_of_a_file_of_statistics_is_refused_before_anything_is_written(trained, tmp_path, measuring):
    file = tmp_path / "reference.npz"
    np.savez(file, mu=np.zeros(3), sigma=np.eye(3), arr_0=np.zeros((8, 32, 32, 3), np.uint8))
    options = {"metrics": {"gfd": COLOURS}, "reference": str(file), "limit": 5}
    if measuring:
        load = ("tokenizer", "latents")
        project = trained.later(tmp_path / "runs", ["train_generator"], load=load, train_generator={"measure": options})
    else:
        project = evaluating(trained, tmp_path / "runs", **options)
    option = "train_generator.measure.limit" if measuring else "evaluate_generator.limit"
    with pytest.raises(RobustokError, match=f"{option}: .*for gfd: .*they cannot be limited to 5"):
        project.run()
    assert not (tmp_path / "runs").exists()


@frozen(kw_only=True)
class SpreadConfig:
    """The feature network."""

    features: Spec = component("features", doc="the network that sees")


class Spread(SampleMetric):
    """The determinant of the features' covariance, 0 with fewer images than features."""

    Config = SpreadConfig
    needs_full_rank = True

    def __init__(self, config):
        self.config = config

    def compute(self, samples, reference):
        return {"spread": Result(samples.moments(self.config.features)[1].det())}


class Mean(Spread):
    """Uses features, but works with any number of images."""

    needs_full_rank = False


@pytest.mark.parametrize(("metric", "noted"), [(Spread, True), (Mean, False)])
def test_a_metric_that_needs_more_images_than_features_says_so_itself(trained, tmp_path, metric, noted):
    project = evaluating(trained, tmp_path, metrics={"theirs": {"use": "theirs", "features": FEATURES}})
    project.run(registry=registry_with(sample_metric={"theirs": metric}))
    assert project.results["evaluate_generator/spread"].value == pytest.approx(0.0, abs=1e-6)
    assert (f"{NUM_SAMPLES} images are too few for {NUM_FEATURES} features" in project.printed) == noted


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (COLOURS, "not of 'fashion_classifier'"),
        ({"use": "fdr", "networks": {"one": FEATURES}}, "not of 'fashion_classifier'"),
        ({"use": "frechet", "features": {"use": "inception", "weights": "other.pth"}}, "not of 'inception_other'"),
        ({"use": "sfid", "network": {"use": "inception_spatial", "weights": "other.pth"}}, "'inception_spatial_other'"),
    ],
    ids=["frechet", "fdr", "other weights", "sfid"],
)
def test_statistics_of_another_network_are_refused_before_anything_is_written(
    trained, tmp_path, monkeypatch, metric, message
):
    monkeypatch.chdir(tmp_path)
    Path("other.pth").write_bytes(b"not the published ones")
    pictures = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    np.savez("reference.npz", mu=np.zeros(2048), sigma=np.eye(2048), arr_0=pictures)
    project = evaluating(trained, tmp_path / "runs", metrics={"one": metric}, reference="reference.npz")
    refusal = project.refusal()
    assert "metrics.one: the reference: mu and sigma are of the published Inception's features, not of" in refusal
    assert message in refusal
    assert not project.out.exists()


@pytest.mark.parametrize(
    ("metric", "arrays", "message"),
    [
        ({"use": "frechet", "features": {"use": "inception"}}, {}, "mu has 4 numbers, but inception has 2048 features"),
        ({"use": "sfid"}, {}, "mu_s has 3 numbers, but inception_spatial has 2023 features"),
        (COLOURS, {"sigma_s": np.eye(2)}, "mu_s and sigma_s must be (F,) and (F, F), found (3,) and (2, 2)"),
        (COLOURS, {"arr_0": np.zeros((2, 32, 32, 3))}, "images must be uint8"),
    ],
    ids=["width", "spatial width", "shapes", "images"],
)
def test_statistics_that_fit_no_network_are_refused_before_anything_is_written(
    trained, tmp_path, metric, arrays, message
):
    held = {"mu": np.zeros(4), "sigma": np.eye(4), "mu_s": np.zeros(3), "sigma_s": np.eye(3)}
    np.savez(tmp_path / "reference.npz", **{**held, **arrays})
    reference = str(tmp_path / "reference.npz")
    project = evaluating(trained, tmp_path / "runs", metrics={"one": metric}, reference=reference)
    assert message in project.refusal()
    assert not project.out.exists()


@frozen(kw_only=True)
class NoOptions:
    """No options."""


class Unclassified(Features):
    """The mean colour of an image; it knows no classes."""

    Config = NoOptions
    name, width, fingerprint = "unclassified", 3, "unclassified"

    def __init__(self, config):
        super().__init__()

    def forward(self, images):
        return images.mean(dim=(2, 3))

    def maps(self, images):
        return [images]


class WithWeights(Unclassified):
    """A network that cannot be built where there are only shapes."""

    def __init__(self, config):
        super().__init__(config)
        self.scale = float(torch.ones(()))


@pytest.mark.parametrize(("network", "refused"), [(Unclassified, True), (WithWeights, False)])
def test_a_network_that_is_known_to_have_no_classifier_is_refused_before_anything_is_written(
    trained, tmp_path, network, refused
):
    metrics = {"score": {"use": "inception_score", "features": {"use": "theirs"}}}
    project = evaluating(trained, tmp_path / "runs", metrics=metrics)
    registry = registry_with(features={"theirs": network})
    if not refused:
        project.check(registry=registry)
        return
    message = "stage.evaluate_generator.metrics.score: the features 'unclassified' have no classifier"
    assert message in project.refusal(registry=registry)
    assert not project.out.exists()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"use": "inception"}, "this file does not hold the weights of torch-fidelity's InceptionV3"),
        ({"use": "dino"}, "the weights of vit_small_patch16_224.dino cannot be loaded"),
        ({"use": "timm", "network": "no_network.at_all"}, "timm has no weights of a network 'no_network.at_all'"),
    ],
)
def test_a_file_without_the_weights_of_a_network_is_refused_before_anything_is_written(
    trained, tmp_path, network, message
):
    torch.save({"layer.weight": torch.zeros(3, 2)}, tmp_path / "weights.pth")
    features = network | {"weights": str(tmp_path / "weights.pth")}
    project = evaluating(trained, tmp_path / "runs", metrics={"gfd": COLOURS | {"features": features}})
    refusal = project.refusal()
    assert message in refusal
    assert "stage.evaluate_generator.metrics.gfd" in refusal
    assert not project.out.exists()


def test_a_network_that_gives_no_features_is_refused_before_anything_is_written(trained, tmp_path):
    features = {"use": "timm", "network": "swin_tiny_patch4_window7_224.ms_in1k", "weights": "random"}
    project = evaluating(trained, tmp_path / "runs", metrics={"gfd": COLOURS | {"features": features}})
    message = "stage.evaluate_generator.metrics.gfd: swin_tiny_patch4_window7_224_ms_in1k_random cannot be a feature"
    assert message in project.refusal()
    assert not project.out.exists()


def test_a_reference_with_pictures_of_another_size_is_refused_before_anything_is_written(trained, tmp_path):
    file = tmp_path / "reference.npz"
    np.savez(file, arr_0=np.zeros((8, 64, 64, 3), np.uint8))
    message = evaluating(trained, tmp_path, reference=str(file)).refusal()
    assert f"the samples have 32 x 32 pixels, the images of {file} 64 x 64" in message
    assert "stage.evaluate_generator.reference: " in message
    assert [path.name for path in tmp_path.iterdir()] == ["reference.npz"]


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ([], "reference: {folder}: there are no images in this folder"),
        ([64, 64, 64], "reference: the samples have 32 x 32 pixels, the images of {folder} 64 x 64"),
        ([32, 32, 64], "reference: {folder}/2.png: this image has 64x64 pixels, but 0.png has 32x32"),
        ([32, 32, 32], "metrics.precision_recall: the reference: 3 images are too few for 3 neighbours each"),
    ],
    ids=["empty", "large", "mixed", "few"],
)
def test_a_folder_that_cannot_be_the_reference_is_refused_before_anything_is_written(trained, tmp_path, sides, message):
    folder = tmp_path / "real"
    folder.mkdir()
    for number, side in enumerate(sides):
        Image.new("RGB", (side, side)).save(folder / f"{number}.png")
    project = evaluating(trained, tmp_path / "runs", reference=str(folder))
    assert f"stage.evaluate_generator.{message.format(folder=folder)}" in project.refusal()
    assert not project.out.exists()


def test_a_folder_of_real_images_is_a_reference(trained, tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 10, 10)).save(folder / f"{number}.png")
    result = evaluating(trained, tmp_path / "runs", reference=str(folder)).run().results[DISTANCE]
    assert result.num_reference == 6
