"""Arms that measure otherwise than the base arm are refused before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from project import recipe_of
from robustok_study.checks import unequal_conditions
from robustok_study.spec import read_study_file
from studies import EVALUATION

METRIC = "evaluate_tokenizer/psnr"


def mistakes(file, registry) -> list[str]:
    study = read_study_file(str(file), registry)
    recipes = {arm.name: arm.recipe.resolve(registry) for arm in study.arms}
    return [str(problem) for problem in unequal_conditions(study, recipes)]


def test_arms_that_measure_with_unequal_numbers_of_images_are_refused_before_anything_runs(study_file, registry):
    arms = [
        {"name": "one"},
        {"name": "two", "set": {"stage": {"evaluate_tokenizer": {"limit": 10}}, "data": {"validation_limit": 20}}},
    ]
    found = mistakes(study_file(arm=arms), registry)
    assert len(found) == 2
    assert re.search(
        r"^s\.toml:\d+: arm 'two' has limit = 10 in stage\.evaluate_tokenizer, and the base arm 'one' has all", found[0]
    )
    assert "validation_limit = 20 in data, and the base arm 'one' has 40" in found[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": {"image_size": 64}, "tokenizer": {"image_size": 64}},
            "image_size = 64 in data, and the base arm 'one' has 32",
        ),
        (
            {"stage": {"evaluate_tokenizer": {"metrics": {"pfd": {"alphas": [0.5, 1.0]}}}}},
            "alphas = (0.5, 1.0) in stage.evaluate_tokenizer.metrics.pfd",
        ),
        (
            {"stage": {"evaluate_tokenizer": {"metrics": {"rfd": {"features": {"use": "efficientnet_lite0"}}}}}},
            "use = 'efficientnet_lite0' in stage.evaluate_tokenizer.metrics.rfd.features",
        ),
    ],
)
def test_arms_that_measure_otherwise_are_refused_before_anything_runs(change, message, study_file, registry):
    file = study_file(arm=[{"name": "one"}, {"name": "two", "set": change}], claim=[], metrics={"PSNR": METRIC})
    found = mistakes(file, registry)
    assert [problem.partition(": ")[2].startswith(f"arm 'two' has {message}") for problem in found] == [True]
    assert re.match(r"s\.toml:\d+: ", found[0])


def test_arms_with_other_held_out_images_are_refused_but_not_with_the_same_images_elsewhere(
    study_file, registry, tmp_path
):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 32, 32, 3), np.uint8)
    arms = []
    for name, pixels in (("here", images), ("there", images), ("others", images[::-1])):
        file = tmp_path / f"{name}.npz"
        np.savez(file, arr_0=pixels, arr_1=np.arange(60) % 2)
        data = {"use": "npz", "path": str(file), "image_size": 32}
        arms.append({"name": name, "set": {"data": data}})
    (found,) = mistakes(study_file(arm=arms, claim=[], metrics={"PSNR": METRIC}), registry)
    assert "arm 'others' measures other images than the base arm 'here': its [data] differs" in found


def test_arms_are_compared_where_the_base_arm_lacks_the_stage(study_file, registry):
    arms: list[dict] = [{"name": "one", "stages": ["train_tokenizer"]}, {"name": "two"}]
    arms.append({"name": "three", "set": {"stage": {"evaluate_tokenizer": {"limit": 10}}}})
    (found,) = mistakes(study_file(arm=arms, claim=[]), registry)
    assert "arm 'three' has limit = 10 in stage.evaluate_tokenizer, and the arm 'two' has all" in found


def test_stages_that_the_study_does_not_read_may_measure_as_they_like(study_file, registry):
    again = {"use": "evaluate_tokenizer", "name": "again", "metrics": {"psnr": {"use": "psnr"}}}
    arms = [{"name": "one"}, {"name": "two", "set": {"stage": {"again": {"limit": 5}}}}]
    file = study_file(metrics={"PSNR": METRIC}, claim=[], arm=arms)
    Path("r.toml").write_text(tomli_w.dumps(recipe_of(["train_tokenizer", EVALUATION, again])))
    assert not mistakes(file, registry)
    study_file(metrics={"PSNR": METRIC, "again": "again/psnr"}, claim=[], arm=arms)
    Path("r.toml").write_text(tomli_w.dumps(recipe_of(["train_tokenizer", EVALUATION, again])))
    assert "arm 'two' has limit = 5 in stage.again" in mistakes(file, registry)[0]
