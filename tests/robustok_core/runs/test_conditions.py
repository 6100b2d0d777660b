"""What the results of real runs depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import Project
from robustok_core.runs.conditions import (
    TRAINING_IMAGES,
    VALIDATION_IMAGES,
    Conditions,
    Number,
    differences,
    read_conditions,
)
from robustok_core.runs.results import read_results

PSNR = "evaluate_tokenizer/psnr"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Project]:
    """A run, and others that differ in their data."""
    data = {"same": {}, "other images": {"validation_limit": 30}, "other training": {"train_limit": 60}}
    stages = ["train_tokenizer", {"use": "evaluate_tokenizer", "metrics": {"psnr": {"use": "psnr"}}}]
    folder = tmp_path_factory.mktemp("runs")
    first = Project(folder / "first", stages).run()
    return {"first": first} | {name: Project(folder / name, stages, data=change).run() for name, change in data.items()}


def number(folder: Path, name: str) -> Number:
    return Number(read_conditions(folder), name, read_results(folder)[name])


@pytest.mark.parametrize(
    ("name", "keys"),
    [("same", set()), ("other images", {VALIDATION_IMAGES}), ("other training", {TRAINING_IMAGES})],
)
def test_runs_differ_in_the_images_that_they_measured_or_trained_on(runs, name, keys):
    folders = [runs["first"].folder, runs[name].folder]
    assert differences([number(folder, PSNR) for folder in folders]).keys() - {"numbers of images in the mean"} == keys


def test_a_run_of_an_earlier_version_is_compared_by_the_options_of_its_data(runs, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    for name in ("recipe.toml", "results.json"):  # its run.json does not say which images these were
        (old / name).write_text((runs["other images"].folder / name).read_text())
    folders = [runs["first"].folder, old]
    found = differences([number(folder, PSNR) for folder in folders])
    assert found == {"data.validation_limit": ["40", "30"], "numbers of images in the mean": ["40", "30"]}


def test_nothing_is_known_of_a_run_that_left_only_its_results(tmp_path):
    assert read_conditions(tmp_path) == Conditions()
