"""A check, and a run before its first stage, decodes images of the data, and names those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project import Project
from robustok_core import Recipe, RobustokError
from robustok_core.runs.checking import check


def project_of(tmp_path: Path, *damaged: int) -> Project:
    """A recipe on twelve images, of which some are damaged; a third of them is held out."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        file = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        if number in damaged:
            file.write_bytes(file.read_bytes()[:-600])  # its header says that all is well
    data = {"use": "image_folder", "path": str(tmp_path / "images"), "image_size": 32, "validation_share": 1 / 3}
    return Project(tmp_path / "out", data=data, train_tokenizer={"batch_size": 4})


def checked(project: Project, **options) -> list[str]:
    said: list[str] = []
    check(Recipe.from_table(project.table), out=project.out, announce=said.append, **options)
    return said


def test_a_sound_recipe_gives_its_plan_and_runs_nothing(tmp_path):
    project = project_of(tmp_path)
    plan = check(Recipe.from_table(project.table), out=project.out)
    assert [stage.name for stage in plan.stages] == ["train_tokenizer"]
    assert not project.out.exists()


def test_unreadable_images_are_counted_and_named(tmp_path):
    with pytest.raises(RobustokError) as raised:
        checked(project_of(tmp_path, *range(12)))
    assert "8 of 8 images of train cannot be read: " in str(raised.value)
    assert "4 of 4 images of validation cannot be read: " in str(raised.value)
    assert "cat/00.png" in str(raised.value)


def test_only_some_images_are_decoded_evenly_spread_and_it_says_so(tmp_path):
    assert checked(project_of(tmp_path), images=3) == [
        "data: 3 of 8 images of train were decoded; --every-image decodes all",
        "data: 3 of 4 images of validation were decoded; --every-image decodes all",
    ]
    assert checked(project_of(tmp_path), images=None) == []


def test_a_new_run_refuses_unreadable_images_of_both_splits_before_its_first_stage(tmp_path):
    project = project_of(tmp_path, *range(12))
    with pytest.raises(RobustokError) as raised:
        project.run()
    told = [problem.what for problem in raised.value.problems]
    assert [what.partition(" cannot be read: ")[0] for what in told] == [
        "data: 8 of 8 images of train",
        "data: 4 of 4 images of validation",
    ]
    assert not project.folder.exists()


def test_a_run_that_has_begun_looks_at_images_only_when_a_stage_reads_them(tmp_path):
    project = project_of(tmp_path)
    project.run()
    for file in (tmp_path / "images").glob("*/*.png"):
        file.write_bytes(b"x" * file.stat().st_size)
    refusal = project.refusal()
    assert "this image cannot be read" in refusal
    assert "images of train cannot be read" not in refusal


def test_a_run_whose_stages_read_no_images_does_not_look_at_them(tmp_path):
    project = project_of(tmp_path, *range(12))
    project.table["stage"] = [{"use": "take_tokenizer"}]
    assert project.run().artifact("tokenizer").is_dir()
