from __future__ import annotations

import shutil

import pytest
import torch

from project import POST_TRAINING, TO_SAMPLES, Project
from robustok_core import RobustokError
from robustok_core.runs.folder import finished_artifacts
from robustok_core.runs.run_record import read_run, write_run
from robustok_explorer.answers import answer
from robustok_explorer.opened_run import next_of_class, open_run

CPU = torch.device("cpu")


def test_a_run_without_post_training_has_one_decoder(trained, open_project):
    run = open_project(trained)
    assert dict(run.places) == {"": str(trained.folder)}
    assert list(run.missing) == []


def test_a_post_trained_run_has_the_tokenizer_that_it_loaded_before(post_trained, trained, open_project):
    run = open_project(post_trained)
    assert list(run.places) == ["before", "after"]
    assert run.tokenizers["before"].where.resolve() == trained.artifact("tokenizer").resolve()
    assert [folder.resolve() for folder in finished_artifacts(post_trained.folder, "tokenizer")] == [
        trained.artifact("tokenizer").resolve(),
        post_trained.artifact("tokenizer").resolve(),
    ]
    assert list(run.missing) == []


def test_a_later_round_has_the_tokenizer_that_it_began_with_before(post_trained, tmp_path, open_project):
    again = {"another_round": True}
    second = post_trained.later(tmp_path, POST_TRAINING, load=("tokenizer", "generator"), make_pairs=again).run()
    run = open_project(second)
    assert run.tokenizers["before"].where.resolve() == post_trained.artifact("tokenizer").resolve()
    assert run.tokenizers["after"].where.resolve() == second.artifact("tokenizer").resolve()


def test_a_run_that_stopped_early_says_what_it_does_not_have_yet(tmp_path, open_project):
    project = Project(tmp_path / "runs", [*TO_SAMPLES, *POST_TRAINING]).run(until="train_tokenizer")
    run = open_project(project)
    after, generator = run.missing
    assert after == "The tokenizer after post-training: this run has no finished tokenizer."
    assert generator.endswith("this run has no finished generator.")
    assert run.places == {"": str(project.artifact("tokenizer", stage="train_tokenizer"))}
    assert "of 16 tokens changed" in answer(run, "perturb", {"image": 3})[0]
    assert "no finished generator" in answer(run, "keep", {"image": 3})[0]
    assert "no finished generator" in answer(run, "sample", {})[0]


def test_a_run_whose_data_are_gone_takes_image_files(trained, tmp_path, open_project):
    folder = tmp_path / "moved"
    shutil.copytree(trained.folder, folder)
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace('use = "fashion_mnist"', 'use = "image_folder"\npath = "gone"'))
    run = open_run(folder, device=CPU)
    assert "The validation images (an image file works): " in run.missing[0]
    assert "this run&#x27;s data cannot be read" in answer(run, "perturb", {"image": 3})[0]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "nowhere: there is no such run"),
        (".", "this is not a run folder"),
        ("artifact", "this is the folder of an artifact, not of a run"),
    ],
)
def test_what_is_not_a_run_is_refused(trained, tmp_path, place, message):
    where = trained.artifact("tokenizer") if place == "artifact" else tmp_path / place
    with pytest.raises(RobustokError, match=message):
        open_run(where, device=CPU)


def test_a_run_whose_tokenizer_is_not_finished_is_refused(trained, tmp_path):
    folder = tmp_path / "interrupted"
    shutil.copytree(trained.folder, folder)
    record = read_run(folder)
    for name, stage in record["stages"].items():
        stage["state"] = "interrupted" if name.startswith("train_tokenizer") else "new"
    write_run(folder, record)
    with pytest.raises(RobustokError, match=r"this run has no finished tokenizer \(let the run finish first\)"):
        open_run(folder, device=CPU)


def test_the_next_images_of_a_class_go_on_at_its_beginning():
    labels = torch.tensor([0, 1, 0, 1, 0])
    assert next_of_class(labels, 2, 2) == [2, 4]
    assert next_of_class(labels, 4, 3) == [4, 0, 2]
    assert next_of_class(labels, 1, 9) == [1, 3]
