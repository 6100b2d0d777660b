"""Samples and real images that cannot be compared are refused before a run begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import frozen
from PIL import Image

from evaluations import DISTANCE, EVALUATION, FEATURES, STAGE, evaluating
from project import (
    COLOURS,
    NUM_SAMPLES,
    TO_SAMPLES,
    TRAIN_IMAGES,
    Project,
    registry_with,
)
from robustok_core import (
    Result,
    RobustokError,
    SampleMetric,
    Spec,
)
from robustok_core.kinds.features import Features
from robustok_core.values.spec import component

NUM_FEATURES = 96  # of FEATURES


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
