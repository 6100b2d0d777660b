"""Evaluation of a trained tokenizer: its results and picture, and the images and tokenizer they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from project import (
    CODEBOOK_SIZE,
    CONTINUOUS,
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_TOKENS,
    TRAIN_IMAGES,
    VALIDATION_IMAGES,
    WIDTH,
    Project,
)
from robustok_core import ProblemsError, Result, RobustokError
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.results import read_results
from robustok_toolkit import latent_neighbours
from robustok_training.batches import class_balanced_order

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


STAGE = "evaluate_tokenizer"


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Project:
    """A tokenizer, trained for longer than by default and evaluated; not to be changed."""
    stages = ["train_tokenizer", EVALUATION]
    return Project(tmp_path_factory.mktemp("learned"), stages, train_tokenizer={"epochs": 8}).run()


def evaluating(learned: Project, out: Path, **options: Any) -> Project:
    """A project that only evaluates the tokenizer of another."""
    return learned.later(out, [{**EVALUATION, **options}])


def of_evaluation(results: Mapping[str, Result]) -> dict[str, Result]:
    """The results of the stage by the name of the metric."""
    return {name.removeprefix(f"{STAGE}/"): result for name, result in results.items() if name.startswith(STAGE)}


def evaluated(project: Project) -> dict[str, Result]:
    return of_evaluation(project.run().results)


def eight_bits(images: torch.Tensor) -> np.ndarray:
    """float64 pixels in 0 ... 255."""
    return np.floor((np.clip(images.double().numpy(), -1, 1) + 1) * 127.5 + 0.5)


@torch.no_grad()
def measured(project: Project, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The PSNR of each image in dB, and all codes, computed with the saved tokenizer and numpy."""
    tokenizer = project.component("tokenizer")
    latents = tokenizer.encode(images)
    errors = (eight_bits(tokenizer.decode(latents)) - eight_bits(images)) ** 2
    return 10 * np.log10(255**2 / errors.mean(axis=(1, 2, 3))), latents.codes.numpy()


def validation_images(project: Project) -> torch.Tensor:
    images = project.dataset().validation
    return images.load(range(len(images))).images


def test_the_results_are_those_of_the_metrics_and_are_in_results_json(learned):
    results = of_evaluation(learned.results)
    distances = ["rfd_fashion_classifier", "pfd_fashion_classifier"]
    names = ["psnr", "ssim", "codebook_usage", "codebook_perplexity", *distances]
    assert results.keys() == set(names)
    training = {"train_tokenizer/parameters", "train_tokenizer/steps"}
    assert learned.results.keys() == training | {f"{STAGE}/{name}" for name in names}
    written = read_json(learned.folder / "results.json")
    assert written["evaluate_tokenizer/psnr"] == {
        "value": results["psnr"].value,
        "higher_is_better": True,
        "details": {"num_images": VALIDATION_IMAGES},
    }
    assert read_results(learned.folder) == learned.results
    assert written.keys() == learned.results.keys()
    assert [results[name].num_images for name in distances] == [VALIDATION_IMAGES] * 2
    details = results["pfd_fashion_classifier"].details
    assert list(details["cells"]) == list(CELLS)
    assert details["num_cells"] == len(CELLS)
    assert results["pfd_fashion_classifier"].value == pytest.approx(np.mean(list(details["cells"].values())))


def test_psnr_and_usage_are_those_of_the_saved_tokenizer(learned):
    results = of_evaluation(learned.results)
    decibels, codes = measured(learned, validation_images(learned))
    assert results["psnr"].value == pytest.approx(decibels.mean(), rel=1e-6)
    assert results["codebook_usage"].value == len(np.unique(codes)) / CODEBOOK_SIZE


def test_perturbing_each_token_to_its_own_code_gives_the_distance_of_reconstructions(learned, tmp_path):
    """With delta 1 the nearest code is the token's own; with 8 or 32 it may not be."""
    metrics = {
        "rfd": EVALUATION["metrics"]["rfd"],
        "pfd": {"use": "pfid", "features": FEATURES, "alphas": [0.07, 1.0], "deltas": [1]},
    }
    results = evaluated(evaluating(learned, tmp_path, metrics=metrics))
    rfd = results["rfd_fashion_classifier"].value
    cells = results["pfd_fashion_classifier"].details["cells"]
    assert cells["alpha0.07_delta1"] == pytest.approx(rfd, rel=1e-6)
    assert cells["alpha1_delta1"] == pytest.approx(rfd, rel=1e-6)
    for cell in of_evaluation(learned.results)["pfd_fashion_classifier"].details["cells"].values():
        assert abs(cell / rfd - 1) > 1e-3


def test_two_metrics_that_give_one_name_are_both_reported(learned, tmp_path):
    one = {"use": "pfid", "features": FEATURES, "alphas": [1.0], "deltas": [8]}
    results = evaluated(evaluating(learned, tmp_path, metrics={"near": one | {"deltas": [1]}, "far": one}))
    assert list(results) == ["pfd_fashion_classifier", "far_pfd_fashion_classifier"]
    assert list(results["pfd_fashion_classifier"].details["cells"]) == ["alpha1_delta1"]
    assert list(results["far_pfd_fashion_classifier"].details["cells"]) == ["alpha1_delta8"]


def test_the_picture_has_three_captioned_rows_of_enlarged_images(learned):
    picture = np.asarray(Image.open(learned.artifact("tokenizer_pictures") / "reconstructions.png").convert("RGB"))
    size, caption = 64, 16
    assert picture.shape == (3 * (caption + size), 6 * size, 3)
    rows = picture.reshape(3, caption + size, 6 * size, 3)
    for row in rows:
        assert (row[:caption] < 128).any(), "the caption's letters"
        assert (row[:caption] == 255).mean() > 0.5, "on white"
    chosen = class_balanced_order(learned.dataset().validation.labels)[:6]
    assert len(set(learned.dataset().validation.labels[chosen].tolist())) == 6, "one of each class, as far as they go"
    images = eight_bits(validation_images(learned)[chosen])  # (6, 3, 32, 32)
    strip = images.transpose(2, 0, 3, 1).reshape(32, 6 * 32, 3)
    inputs, reconstructions, perturbed = (row[caption:] for row in rows)
    np.testing.assert_array_equal(inputs, strip.repeat(2, axis=0).repeat(2, axis=1))
    assert (reconstructions != inputs).any()
    assert (perturbed != reconstructions).any()


def test_a_limit_takes_images_of_every_class_from_sorted_data(learned, tmp_path):
    splits = learned.dataset()
    arrays = {}
    for name, split in (("train", splits.train), ("val", splits.validation)):
        batch = split.load(torch.argsort(split.labels, stable=True).tolist())
        arrays[f"{name}_images"] = eight_bits(batch.images).astype(np.uint8).transpose(0, 2, 3, 1)
        arrays[f"{name}_labels"] = batch.labels.numpy()
    np.savez(tmp_path / "sorted.npz", **arrays)
    project = evaluating(learned, tmp_path, limit=NUM_CLASSES, pictures=0, metrics={"psnr": {"use": "psnr"}})
    project.table["data"] = {"use": "npz", "path": str(tmp_path / "sorted.npz"), "image_size": IMAGE_SIZE}
    decibels, _ = measured(learned, validation_images(project))
    _, first_of_each_class = np.unique(arrays["val_labels"], return_index=True)
    assert len(first_of_each_class) == NUM_CLASSES
    assert evaluated(project)["psnr"].value == pytest.approx(decibels[first_of_each_class].mean(), rel=1e-6)


def test_two_processes_measure_what_one_measures(learned, tmp_path):
    project = evaluating(learned, tmp_path / "two").run_on_two()
    assert "2 processes, on cpu: each has all weights (DDP)" in project.printed
    assert project.printed.count("evaluate_tokenizer/psnr") == 1, "both processes print the results"
    one, two = of_evaluation(learned.results), of_evaluation(read_results(project.folder))
    assert two.keys() == one.keys()
    for name, result in two.items():
        rounding = 1e-3 if "fd_" in name else 1e-6
        assert result.value == pytest.approx(one[name].value, rel=rounding), name
        assert result.num_images == one[name].num_images, name
        assert result.details.get("cells", {}) == pytest.approx(one[name].details.get("cells", {}), rel=rounding), name


def test_a_loaded_tokenizer_is_evaluated_as_in_its_own_run(learned, tmp_path, monkeypatch):
    """Paths in [load] are relative to the working directory; the draws follow from the stage's name and the seed."""
    monkeypatch.chdir(learned.out)
    project = evaluating(learned, tmp_path)
    project.table["load"]["tokenizer"] = learned.folder.name
    assert evaluated(project) == of_evaluation(learned.results)


def test_a_missing_or_unfinished_run_is_refused_before_anything_is_written(learned, tmp_path):
    project = evaluating(learned, tmp_path / "out")
    unfinished = tmp_path / "other"
    unfinished.mkdir()
    entry = {"state": "interrupted", "makes": ["tokenizer"]}
    write_json(unfinished / "run.json", {"current": {"train_tokenizer": "0"}, "stages": {"train_tokenizer-0": entry}})
    for path, words in {
        tmp_path
        / "nowhere": r"\[load\] tokenizer: .*nowhere: there is no such file or folder .*relative to the working",
        unfinished: r"\[load\] tokenizer: .*other: this run has no finished tokenizer \(let the run finish first\)",
    }.items():
        project.table["load"]["tokenizer"] = str(path)
        with pytest.raises(RobustokError, match=words) as caught:
            project.run()
        assert not isinstance(caught.value, ProblemsError)
        assert caught.value.exit_code == 2
        assert not project.out.exists()


NEEDS_CODES = {
    "pfd": "pFID perturbs codes, but this latent space has none (continuous, 16 tokens of width 4) (use the metric "
    "noise_pfd for a continuous tokenizer)",
    "usage": "this latent space has no codes to count",
}


def said_in_check(project: Project) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        project.check()
    return [str(problem) for problem in caught.value.problems]


def test_the_default_metrics_that_need_codes_are_refused_for_a_continuous_tokenizer_at_check(tmp_path):
    message = said_in_check(Project(tmp_path, ["train_tokenizer", STAGE], **CONTINUOUS))
    for one, (name, words) in zip(message, NEEDS_CODES.items(), strict=True):
        assert f"stage.evaluate_tokenizer.metrics.{name}: " in one
        assert words in one


def test_metrics_that_do_not_fit_the_codes_of_a_loaded_tokenizer_are_refused_at_check(learned, tmp_path):
    metrics = {
        "pfd": {"use": "pfid", "deltas": [CODEBOOK_SIZE + 1]},
        "noise": {"use": "noise_pfd"},
        "psnr": {"use": "psnr"},
    }
    message = said_in_check(evaluating(learned, tmp_path, metrics=metrics))
    assert len(message) == 2
    assert "stage.evaluate_tokenizer.metrics.pfd: " in message[0]
    assert str(CODEBOOK_SIZE + 1) in message[0]
    assert "metrics.noise: metric noise_pfd: noise_pfd adds noise to vectors" in message[1]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"use": "lpips"}, "this file does not hold the weights of vgg"),
        ({"use": "frechet", "features": {"use": "inception"}}, "does not hold the weights of torch-fidelity's"),
    ],
)
def test_a_file_without_the_weights_of_a_network_is_refused_before_anything_is_written(
    learned, tmp_path, metric, message
):
    torch.save({"features.0.weight": torch.zeros(3, 2)}, tmp_path / "weights.pth")
    (metric.get("features") or metric)["weights"] = str(tmp_path / "weights.pth")
    project = evaluating(learned, tmp_path / "runs", metrics={"one": metric})
    refusal = project.refusal()
    assert "stage.evaluate_tokenizer.metrics.one: " in refusal
    assert message in refusal
    assert not project.out.exists()


@pytest.mark.parametrize(
    ("size", "metric", "message"),
    [
        (
            24,
            {"use": "lpips", "network": "alex"},
            "LPIPS with alex takes images of at least 31 pixels, but these have 24",
        ),
        (8, {"use": "lpips"}, "LPIPS with vgg takes images of at least 16 pixels, but these have 8"),
        (8, {"use": "ssim"}, "SSIM uses windows of 11 pixels, but the images have 8"),
    ],
)
def test_a_metric_of_larger_images_is_refused_before_anything_is_written(tmp_path, size, metric, message):
    stages = ["train_tokenizer", EVALUATION | {"metrics": {"one": metric}}]
    project = Project(tmp_path / "runs", stages, data={"image_size": size}, tokenizer={"image_size": size})
    refusal = project.refusal()
    assert "stage.evaluate_tokenizer.metrics.one: " in refusal
    assert message in refusal
    assert not project.out.exists()


@pytest.mark.parametrize(("held", "said"), [({}, True), ({"train_images": 20}, False)])
def test_latents_that_ifid_cannot_hold_on_this_machine_are_said_at_check(
    learned, tmp_path, monkeypatch, caplog, held, said
):
    monkeypatch.setattr(latent_neighbours, "usable_memory", lambda: 20 * NUM_TOKENS * WIDTH * 4)
    metric = {"use": "ifid", "features": FEATURES, "interpolation": "mask", **held}
    evaluating(learned, tmp_path, metrics={"ifd": metric}).check()
    message = f"stage.evaluate_tokenizer.metrics.ifd: the latents of {TRAIN_IMAGES} training images take"
    assert (message in caplog.text) == said


@pytest.mark.parametrize(("metric", "noted"), [("rfd", True), ("pfd", True), ("psnr", False)])
def test_fewer_images_than_features_are_said_once_before_the_pass(learned, tmp_path, metric, noted):
    project = evaluating(learned, tmp_path, metrics={metric: EVALUATION["metrics"][metric]}, limit=20).run()
    note = "evaluate_tokenizer: 20 images are too few for 96 features: the covariance is singular"
    assert project.printed.count(note) == noted
