"""What the results of real runs depend on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from left_runs import MEASURED, NETWORK, distance, leave_run
from project import Project
from robustok_core import Result
from robustok_core.runs.conditions import (
    TRAINING_IMAGES,
    VALIDATION_IMAGES,
    Conditions,
    Number,
    comparable_groups,
    differences,
    forbidding,
    read_conditions,
    why_not,
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


def measured(folder: Path, result: Result, *place_and_value: Any, **record: Any) -> Number:
    """A number of a run whose recipe is `MEASURED`, with one value changed, or taken out."""
    recipe = copy.deepcopy(MEASURED)
    if place_and_value:
        *place, key, value = place_and_value
        table: Any = recipe
        for name in place:
            table = table[name]
        table[key] = value
    leave_run(folder, {"eval/gfd": result}, recipe=recipe, record=record)
    return number(folder, "eval/gfd")


GFD = ("stage", 1, "metrics", "gfd")


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        (distance(1.0, 1000), distance(1.0, 5000), "numbers of images"),
        (distance(1.0, 1000, 400), distance(1.0, 1000, 500), "numbers of real images"),
        (distance(1.0, None, num_images=10), distance(1.0, None, num_images=20), "numbers of images in the mean"),
        (distance(1.0, train_images=400), distance(1.0, train_images=300), "numbers of training images"),
        (distance(1.0, std=0.1), distance(1.0, std=0.2, nearest_by="angle"), "nearest_by"),
        (distance(1.0, deltas_scaled_from=1024, cells={"a": 1}), distance(1.0, cells={"b": 1}), "cells"),
        (distance(1.0), distance(1.0, std=0.2), None),
        (distance(1.0, cells={"delta5": 1}), distance(1.0, cells={"delta10": 1}), None),  # as the paper has them
        (distance(1.0, None), distance(1.0, 10), None),  # not known of one of them
    ],
)
def test_results_say_themselves_whether_they_may_be_compared(tmp_path, one, other, key):
    pair = [measured(tmp_path / "one", one), measured(tmp_path / "other", other)]
    assert list(forbidding(differences(pair))) == ([key] if key else [])
    assert (why_not(pair, ["one", "other"]) or "").startswith(f"different {key} (one: " if key else "")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("data", "use", "fluent_emoji"), "data.use"),
        (("data", "validation_limit", 3), None),  # of the other one it is not known
        (("data", "image_size", 64), "picture size"),
        (("stage", 1, "reference", "train"), "reference"),
        (("stage", 1, "limit", 10), "limit"),
        (("stage", 0, "classes", [3]), "classes of samples"),
        ((*GFD, "features", "use", "inception"), "features"),
        ((*GFD, "neighbours", 5), "metrics.gfd.neighbours"),
        (("stage", 1, "metrics", "second", {"use": "kid", "features": {"use": "inception"}}), None),
        (("stage", 1, "metrics", {"other": {"use": "frechet", "features": {"use": "inception"}}}), "features"),
        (("stage", 1, "metrics", {"other": {"use": "frechet", "features": NETWORK}}), None),
        (("stage", 1, "batch_size", 7), None),
        (("perturbation", "use", "top_delta"), None),
    ],
)
def test_what_is_measured_otherwise_forbids_to_compare_and_nothing_else_does(tmp_path, change, key):
    pair = [measured(tmp_path / "one", distance(1.0)), measured(tmp_path / "other", distance(1.0), *change)]
    assert list(forbidding(differences(pair))) == ([key] if key else [])
    assert list(forbidding(differences(pair[::-1]))) == ([key] if key else [])


def test_other_guidance_and_other_training_images_are_told_and_may_be_compared(tmp_path):
    one = measured(tmp_path / "one", distance(1.0), data={"train": "all", "validation": "v"})
    other = measured(
        tmp_path / "other",
        distance(1.0),
        "stage",
        0,
        "guidance",
        "scale",
        2.0,
        data={"train": "half", "validation": "v"},
    )
    found = differences([one, other])
    assert found == {TRAINING_IMAGES: ["all", "half"], "guidance.scale": ["1.0", "2.0"]}
    assert not forbidding(found)


def test_training_images_that_are_the_reference_forbid_to_compare(tmp_path):
    pair = [
        measured(
            tmp_path / name, distance(1.0), "stage", 1, "reference", "train", data={"train": name, "validation": "v"}
        )
        for name in ("one", "other")
    ]
    assert list(forbidding(differences(pair))) == ["real images"]


def test_runs_are_grouped_by_what_may_be_compared_the_largest_group_first(tmp_path):
    counts = [1000, 5000, 5000, 1000, 5000, 50]
    row = [measured(tmp_path / str(at), distance(1.0, count)) for at, count in enumerate(counts)]
    assert comparable_groups([row]) == [[1, 2, 4], [0, 3], [5]]
    scales = [measured(tmp_path / f"s{at}", distance(1.0), "stage", 0, "guidance", "scale", at) for at in range(3)]
    assert comparable_groups([scales]) == [[0], [1], [2]]
    assert comparable_groups([scales], may_differ=["guidance.scale"]) == [[0, 1, 2]]
    assert comparable_groups([scales, row[:3]], may_differ=["guidance.scale"]) == [[1, 2], [0]]
