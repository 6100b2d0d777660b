"""Evaluation of a trained tokenizer: its results and picture, and the images and tokenizer they belong to."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from robustok_core import ProblemsError, Recipe, Result, RobustokError, run
from robustok_core.runs.components import load_component
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.results import read_results
from robustok_core.runs.runner import check

FEATURES = {"use": "fashion_classifier"}
EVALUATION: dict[str, Any] = {
    "use": "evaluate_tokenizer",
    "batch_size": 16,
    "pictures": 6,
    "metrics": {
        "psnr": {"use": "psnr"},
        "ssim": {"use": "ssim"},
        "rfd": {"use": "frechet", "features": FEATURES},
        "pfd": {"use": "pfid", "features": FEATURES, "alphas": [0.5, 1.0], "deltas": [8, 32]},
        "usage": {"use": "codebook_usage"},
    },
}
CELLS = ["alpha0.5_delta8", "alpha0.5_delta32", "alpha1_delta8", "alpha1_delta32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tiny recipe, trained and evaluated: its table, its run folder, its results."""
    table = recipe_of(train_tokenizer={"epochs": 8})
    table["stage"].append(EVALUATION)
    out = tmp_path_factory.mktemp("trained")
    results = run(Recipe.from_table(table), out=out)
    return table, out / "tiny", {name.removeprefix("evaluate_tokenizer/"): value for name, value in results.items()}


@pytest.fixture
def evaluation(trained):
    """Makes a recipe that only evaluates the trained tokenizer, with keys of the stage changed."""

    def make(**stage: Any) -> dict[str, Any]:
        table = copy.deepcopy(trained[0])
        table["load"] = {"tokenizer": str(trained[1])}
        table["stage"] = [{**EVALUATION, **stage}]
        return table

    return make


def evaluated(table: dict[str, Any], out: Path) -> dict[str, Result]:
    found = run(Recipe.from_table(table), out=out)
    return {name.removeprefix("evaluate_tokenizer/"): value for name, value in found.items()}


def eight_bits(images: torch.Tensor) -> np.ndarray:
    """float64 pixels in 0 ... 255."""
    return np.floor((np.clip(images.double().numpy(), -1, 1) + 1) * 127.5 + 0.5)


@torch.no_grad()
def measured(run_folder: Path, images: torch.Tensor, registry) -> tuple[np.ndarray, np.ndarray]:
    """The PSNR of each image in dB, and all codes, computed with the saved tokenizer and numpy."""
    tokenizer = load_component(registry, find_artifact(run_folder, "tokenizer"))
    latents = tokenizer.encode(images)
    errors = (eight_bits(tokenizer.decode(latents)) - eight_bits(images)) ** 2
    return 10 * np.log10(255**2 / errors.mean(axis=(1, 2, 3))), latents.codes.numpy()


def validation_images(table: dict[str, Any], registry) -> torch.Tensor:
    images = registry.build("dataset", table["data"]).validation
    return images.load(range(len(images))).images


def test_the_results_are_those_of_the_metrics_and_are_in_results_json(trained):
    _, folder, results = trained
    distances = ["rfd_fashion_classifier", "pfd_fashion_classifier"]
    names = ["psnr", "ssim", "codebook_usage", "codebook_perplexity", *distances]
    training = {"train_tokenizer/parameters", "train_tokenizer/steps"}
    assert results.keys() - training == set(names)
    written = read_json(folder / "results.json")
    assert written["evaluate_tokenizer/psnr"] == {"value": results["psnr"].value, "higher_is_better": True}
    assert read_results(folder) == {
        name if name in training else f"evaluate_tokenizer/{name}": result for name, result in results.items()
    }
    assert len(written) == len(results)
    assert [results[name].num_images for name in distances] == [40, 40]
    details = results["pfd_fashion_classifier"].details
    assert list(details["cells"]) == list(CELLS)
    assert details["num_cells"] == len(CELLS)
    assert results["pfd_fashion_classifier"].value == pytest.approx(np.mean(list(details["cells"].values())))


def test_psnr_and_usage_are_those_of_the_saved_tokenizer(trained, registry):
    table, folder, results = trained
    decibels, codes = measured(folder, validation_images(table, registry), registry)
    assert results["psnr"].value == pytest.approx(decibels.mean(), rel=1e-6)
    assert results["codebook_usage"].value == len(np.unique(codes)) / 32


def test_perturbing_each_token_to_its_own_code_gives_the_distance_of_reconstructions(evaluation, tmp_path, trained):
    """With delta 1 the nearest code is the token's own; with 8 or 32 it may not be."""
    metrics = {
        "rfd": EVALUATION["metrics"]["rfd"],
        "pfd": {"use": "pfid", "features": FEATURES, "alphas": [0.07, 1.0], "deltas": [1]},
    }
    results = evaluated(evaluation(metrics=metrics), tmp_path)
    rfd = results["rfd_fashion_classifier"].value
    cells = results["pfd_fashion_classifier"].details["cells"]
    assert cells["alpha0.07_delta1"] == pytest.approx(rfd, rel=1e-6)
    assert cells["alpha1_delta1"] == pytest.approx(rfd, rel=1e-6)
    for cell in CELLS:
        assert abs(trained[2]["pfd_fashion_classifier"].details["cells"][cell] / rfd - 1) > 1e-3


def test_the_picture_has_three_captioned_rows_of_enlarged_images(trained, registry):
    table, folder, _ = trained
    picture = np.asarray(Image.open(find_artifact(folder, "tokenizer_pictures") / "reconstructions.png").convert("RGB"))
    size, caption = 64, 16
    assert picture.shape == (3 * (caption + size), 6 * size, 3)
    rows = picture.reshape(3, caption + size, 6 * size, 3)
    for row in rows:
        assert (row[:caption] < 128).any(), "the caption's letters"
        assert (row[:caption] == 255).mean() > 0.5, "on white"
    images = eight_bits(validation_images(table, registry)[:6])  # (6, 3, 32, 32)
    strip = images.transpose(2, 0, 3, 1).reshape(32, 6 * 32, 3)
    inputs, reconstructions, perturbed = (row[caption:] for row in rows)
    np.testing.assert_array_equal(inputs, strip.repeat(2, axis=0).repeat(2, axis=1))
    assert (reconstructions != inputs).any()
    assert (perturbed != reconstructions).any()


def test_a_limit_takes_images_of_every_class_from_sorted_data(trained, evaluation, registry, tmp_path):
    splits = registry.build("dataset", trained[0]["data"])
    arrays = {}
    for name, split in (("train", splits.train), ("val", splits.validation)):
        batch = split.load(torch.argsort(split.labels, stable=True).tolist())
        arrays[f"{name}_images"] = eight_bits(batch.images).astype(np.uint8).transpose(0, 2, 3, 1)
        arrays[f"{name}_labels"] = batch.labels.numpy()
    np.savez(tmp_path / "sorted.npz", **arrays)
    table = evaluation(limit=10, pictures=0, metrics={"psnr": {"use": "psnr"}})
    table["data"] = {"use": "npz", "path": str(tmp_path / "sorted.npz"), "image_size": 32}
    decibels, _ = measured(trained[1], validation_images(table, registry), registry)
    _, first_of_each_class = np.unique(arrays["val_labels"], return_index=True)
    assert len(first_of_each_class) == 10
    assert evaluated(table, tmp_path)["psnr"].value == pytest.approx(decibels[first_of_each_class].mean(), rel=1e-6)


def test_two_processes_measure_what_one_measures(trained, evaluation, tmp_path):
    folder = run_on_two(evaluation(), tmp_path)
    one, two = trained[2], read_results(folder)
    assert len(two) == len(one) - 2
    for name, result in two.items():
        name = name.removeprefix("evaluate_tokenizer/")
        rounding = 1e-3 if "fd_" in name else 1e-6
        assert result.value == pytest.approx(one[name].value, rel=rounding), name
        assert result.num_images == one[name].num_images, name
        assert result.details.get("cells", {}) == pytest.approx(one[name].details.get("cells", {}), rel=rounding), name


def test_a_loaded_tokenizer_is_evaluated_as_in_its_own_run(trained, evaluation, tmp_path, monkeypatch):
    """Paths in [load] are relative to the working directory; the draws follow from the stage's name and the seed."""
    monkeypatch.chdir(trained[1].parents[0])
    table = evaluation()
    table["load"]["tokenizer"] = "tiny"
    found = evaluated(table, tmp_path)
    assert found == {name: value for name, value in trained[2].items() if not name.startswith("train_tokenizer/")}


def test_a_missing_or_unfinished_run_is_refused_before_anything_is_written(evaluation, tmp_path):
    table = evaluation()
    unfinished = tmp_path / "other"
    unfinished.mkdir()
    entry = {"state": "interrupted", "makes": ["tokenizer"]}
    write_json(unfinished / "run.json", {"current": {"train_tokenizer": "0"}, "stages": {"train_tokenizer-0": entry}})
    for path, words in {
        tmp_path
        / "nowhere": r"\[load\] tokenizer: .*nowhere: there is no such file or folder .*relative to the working",
        unfinished: r"\[load\] tokenizer: .*other: this run has no finished tokenizer \(let the run finish first\)",
    }.items():
        table["load"]["tokenizer"] = str(path)
        with pytest.raises(RobustokError, match=words) as caught:
            run(Recipe.from_table(table), out=tmp_path / "out")
        assert not isinstance(caught.value, ProblemsError)
        assert caught.value.exit_code == 2
        assert not (tmp_path / "out").exists()


CONTINUOUS = {
    "pfd": "pFID perturbs codes, but this latent space has none (continuous, 16 tokens of width 4) (use the metric "
    "noise_pfd for a continuous tokenizer)",
    "usage": "this latent space has no codes to count",
}


def said_in_check(table: dict[str, Any], registry) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        check(Recipe.from_table(table), registry=registry)
    return [str(problem) for problem in caught.value.problems]


def test_the_default_metrics_that_need_codes_are_refused_for_a_continuous_tokenizer_at_check(registry):
    table = continuous(recipe_of())
    table["stage"].append({"use": "evaluate_tokenizer"})
    said = said_in_check(table, registry)
    assert len(said) == len(CONTINUOUS)
    for one, (name, words) in zip(said, CONTINUOUS.items(), strict=True):
        assert f"stage.evaluate_tokenizer.metrics.{name}: " in one
        assert words in one


def test_metrics_that_do_not_fit_the_codes_of_a_loaded_tokenizer_are_refused_at_check(evaluation, registry):
    metrics = {"pfd": {"use": "pfid", "deltas": [33]}, "noise": {"use": "noise_pfd"}, "psnr": {"use": "psnr"}}
    said = said_in_check(evaluation(metrics=metrics), registry)
    assert len(said) == 2
    assert "stage.evaluate_tokenizer.metrics.pfd: " in said[0]
    assert "33" in said[0]
    assert "metrics.noise: metric noise_pfd: noise_pfd adds noise to vectors" in said[1]


@pytest.mark.parametrize(("metric", "noted"), [("rfd", True), ("pfd", True), ("psnr", False)])
def test_fewer_images_than_features_are_said_once_before_the_pass(evaluation, tmp_path, metric, noted):
    said = io.StringIO()
    table = evaluation(metrics={metric: EVALUATION["metrics"][metric]}, limit=20)
    run(Recipe.from_table(table), out=tmp_path, console=Console(file=said, width=250))
    note = "evaluate_tokenizer: 20 images are too few for 96 features: the covariance is singular"
    assert said.getvalue().count(note) == noted
