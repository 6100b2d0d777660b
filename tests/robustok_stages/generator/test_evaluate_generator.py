"""Samples compared with real images, and the whole pipeline from images to a number."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import frozen
from rich.console import Console

from robustok_core import (
    Latents,
    Recipe,
    Result,
    RobustokError,
    SampleMetric,
    Spec,
    hookimpl,
    load_registry,
    run,
)
from robustok_core.runs.components import load_component
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.results import read_results
from robustok_core.values.spec import component
from robustok_toolkit.generating import decode_to_uint8
from robustok_toolkit.latent_files import LatentRows

LOADED = ("tokenizer", "generator")
FEATURES = {"use": "fashion_classifier"}
METRICS = {
    "gfd": {"use": "frechet", "features": FEATURES},
    "precision_recall": {"use": "precision_recall", "features": FEATURES},
}
EVALUATION = {"use": "evaluate_generator", "metrics": METRICS, "batch_size": 16}


def evaluated(table: dict, out: Path, **kwargs) -> dict[str, Result]:
    found = run(Recipe.from_table(table), out=out, **kwargs)
    return {name.removeprefix("evaluate_generator/"): value for name, value in found.items() if "evaluate_" in name}


@pytest.fixture
def evaluation(trained):
    """A recipe that evaluates the samples of a run, with keys of the stage changed."""

    def make(**options) -> dict:
        table = trained.later(tmp_path, [], load=("samples",))
        del table["generator"]
        table["stage"] = [copy.deepcopy(EVALUATION) | options]
        return table

    return make


def test_from_images_to_numbers_and_a_second_call_repeats_nothing(tmp_path):
    table = recipe_of(TO_SAMPLES)
    table["stage"].append(copy.deepcopy(EVALUATION))
    table["stage"].append(copy.deepcopy(EVALUATION) | {"name": "against_training", "reference": "train"})
    said = io.StringIO()
    results = run(Recipe.from_table(table), out=tmp_path, console=Console(file=said, width=250))
    assert results["evaluate_generator/gfd_fashion_classifier"].num_images == 24
    assert results["evaluate_generator/gfd_fashion_classifier"].value > 0
    judged = ("evaluate_generator", "against_training")
    held_out, training = (results[f"{name}/gfd_fashion_classifier"] for name in judged)
    assert held_out.value != training.value
    assert (held_out.num_reference, training.num_reference) == (40, 80)
    assert 0 <= results["evaluate_generator/precision_fashion_classifier"].value <= 1
    assert "evaluate_generator: 24 images are too few for 96 features" in said.getvalue()
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "tiny" / "artifacts").rglob("*") if file.is_file()}
    said = io.StringIO()
    assert run(Recipe.from_table(table), out=tmp_path, console=Console(file=said, width=200)) == results
    assert said.getvalue().count("done before, unchanged") == 6
    assert files == {file: file.stat().st_mtime_ns for file in files}


def test_a_continuous_space_works_the_same(registry, tmp_path):
    """The generator gets the statistics of the latents; the vectors that it samples are stored and can be decoded."""
    table = recipe_of(
        TO_SAMPLES,
        train_generator={
            "ema_decay": 0.5,
            "measure": {"num_samples": 20, "metrics": METRICS, "sampling": {"steps": 2}},
        },
    )
    table = continuous(table)
    table["generator"] = {"use": "flow_transformer", "width": 16, "depth": 1, "num_heads": 2}
    table["stage"].append(copy.deepcopy(EVALUATION))
    results = run(Recipe.from_table(table), out=tmp_path)
    assert results["evaluate_generator/gfd_fashion_classifier"].num_images == 24
    folder = tmp_path / "tiny"
    tokenizer, generator = (load_component(registry, find_artifact(folder, n)) for n in ("tokenizer", "generator"))
    rows = LatentRows(find_artifact(folder, "latents"), "train")
    assert torch.equal(generator.latent_mean, rows.mean)
    assert torch.equal(generator.latent_std, rows.std)
    vectors = torch.from_numpy(np.load(find_artifact(folder, "samples") / "vectors.npy"))
    assert vectors.shape == (24, 16, 4)
    pictures = decode_to_uint8(tokenizer, Latents(vectors=vectors)).permute(0, 2, 3, 1).numpy().astype(int)
    with np.load(find_artifact(folder, "samples") / "samples.npz") as file:
        assert (abs(file["arr_0"] - pictures) <= 1).all()


def test_two_processes_make_the_files_and_the_numbers_of_one(trained, evaluation, tmp_path):
    table = trained.later(tmp_path, ["tokenize", "sample"], load=LOADED)
    table["stage"].append(copy.deepcopy(EVALUATION))
    folder = run_on_two(table, tmp_path)
    one, two = trained.artifact("latents"), find_artifact(folder, "latents")
    files = sorted(str(file.relative_to(one)) for file in one.rglob("*") if file.is_file())
    assert files == sorted(str(file.relative_to(two)) for file in two.rglob("*") if file.is_file())
    assert not [name for name in files if (one / name).read_bytes() != (two / name).read_bytes()]
    one, two = trained.artifact("samples"), find_artifact(folder, "samples")
    for name in ("codes.npy", "samples.npz", "grid.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    found = {name: result for name, result in read_results(folder).items() if "evaluate_" in name}
    expected = evaluated(evaluation(), tmp_path / "one")
    assert {name.removeprefix("evaluate_generator/") for name in found} == set(expected)
    for name, result in found.items():
        one = expected[name.removeprefix("evaluate_generator/")]
        assert result.value == pytest.approx(one.value, rel=1e-4)
        assert (result.num_images, result.num_reference) == (one.num_images, one.num_reference)


def test_the_distance_is_that_of_the_features_of_the_two_sets(evaluation, trained, registry, tmp_path):
    """Computed with numpy and scipy, except for the network."""
    import scipy.linalg

    with np.load(trained.artifact("samples") / "samples.npz") as file:
        samples = torch.from_numpy(file["arr_0"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    real = registry.build("dataset", trained.table["data"]).validation.load(range(40)).images
    network = registry.build("features", FEATURES)
    with torch.no_grad():
        one, two = (network(images).double().numpy() for images in (samples, real))
    a, b = np.cov(one.T), np.cov(two.T)
    root = scipy.linalg.sqrtm(a @ b + 1e-12 * np.eye(len(a))).real
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    found = evaluated(evaluation(), tmp_path)["gfd_fashion_classifier"].value
    assert found == pytest.approx(expected, rel=2e-3)


def test_the_distance_of_samples_to_themselves_is_0(evaluation, trained, tmp_path):
    file = trained.artifact("samples") / "samples.npz"
    results = evaluated(evaluation(reference=str(file)), tmp_path)
    assert results["gfd_fashion_classifier"].value == pytest.approx(0.0, abs=1e-6)
    assert results["precision_fashion_classifier"].value == results["recall_fashion_classifier"].value == 1.0


def test_a_limit_takes_images_of_every_class(evaluation, tmp_path):
    ten, all_images = (
        evaluated(evaluation(**limit), tmp_path / name)["gfd_fashion_classifier"]
        for name, limit in (("ten", {"limit": 10}), ("all", {}))
    )
    assert ten.value != all_images.value
    assert (ten.num_reference, all_images.num_reference) == (10, 40)


def test_a_missing_reference_is_refused_before_anything_is_written(evaluation, tmp_path):
    with pytest.raises(RobustokError, match=r"stage.evaluate_generator.reference: 'valid' is neither 'validation' nor"):
        evaluated(evaluation(reference="valid"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_reference_file_of_something_else_is_refused_before_anything_is_written(evaluation, tmp_path):
    file = tmp_path / "floats.npz"
    np.savez(file, arr_0=np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(RobustokError, match=r"stage.evaluate_generator.reference: .*images must be uint8"):
        evaluated(evaluation(reference=str(file)), tmp_path / "runs")
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
@pytest.mark.parametrize(("metrics", "options", "said"), TOO_MANY)
def test_metrics_that_need_more_images_than_planned_are_refused_before_anything_is_written(
    evaluation, tmp_path, metrics, options, said, loaded
):
    table = evaluation() if loaded else recipe_of(TO_SAMPLES)
    before = [] if loaded else table["stage"]
    table["stage"] = [*before, EVALUATION | {"metrics": metrics} | options]
    with pytest.raises(RobustokError, match=f"stage.evaluate_generator.{said}"):
        run(Recipe.from_table(table), out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arrays", [{}, {"arr_0": np.zeros((8, 4, 4, 3), np.uint8)}])
def test_the_images_of_a_reference_file_are_counted_and_statistics_are_none(evaluation, tmp_path, arrays):
    file = tmp_path / "reference.npz"
    np.savez(file, mu=np.zeros(3), sigma=np.eye(3), **arrays)
    metrics = {"pr": {"use": "precision_recall", "neighbours": 9}}
    said = f"the reference: {len(arrays.get('arr_0', ()))} images are too few for 9 neighbours each"
    with pytest.raises(RobustokError, match=said) as caught:
        evaluated(evaluation(metrics=metrics, reference=str(file)), tmp_path / "runs")
    assert ("statistics are not enough" in caught.value.hint) == (not arrays)
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
def test_a_metric_that_needs_more_images_than_features_says_so_itself(evaluation, tmp_path, metric, noted):
    class Plugin:
        @hookimpl
        def robustok_register(self, register):
            register("sample_metric", "theirs", metric)

    registry, said = load_registry(), io.StringIO()
    assert registry.add_plugin(Plugin(), "theirs").error is None
    table = evaluation(metrics={"theirs": {"use": "theirs", "features": FEATURES}})
    found = evaluated(table, tmp_path, registry=registry, console=Console(file=said, width=250))
    assert found["spread"].value == pytest.approx(0.0, abs=1e-6)
    assert ("24 images are too few for 96 features" in said.getvalue()) == noted
