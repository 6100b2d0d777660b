"""What is said where a path should be a run's folder and is not."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def runs(trained, tmp_path):
    """runs/tiny in the working folder of the commands."""
    (tmp_path / "runs").mkdir()
    return shutil.copytree(trained.folder, tmp_path / "runs" / "tiny")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("sample", "tiny", "--out", "new.png"), "did you mean runs/tiny?"),
        (("sample", "runs/tini", "--out", "new.png"), "did you mean runs/tiny?"),
        (("decode", "tiny", "codes.npz", "--out", "new.png"), "did you mean runs/tiny?"),
        (("verify", "tiny"), "did you mean runs/tiny?"),
        (("history", "tiny"), "did you mean runs/tiny?"),
        (("compare", "tiny", "runs/tiny"), "did you mean runs/tiny?"),
        (("export", "robustok", "tiny", "new.pt"), "did you mean runs/tiny?"),
        (("push", "tiny", "me/net"), "did you mean runs/tiny?"),
        (("run", "tiny"), "did you mean the run runs/tiny?"),
        (("check", "tiny"), "did you mean the run runs/tiny?"),
        (("run", "runs/none"), "there are runs/tiny"),
        (("sample", "runs/none", "--out", "new.png"), "there are runs/tiny"),
        (("sample", "main_train", "--out", "new.png"), "`robustok run main_train` makes runs/main_train"),
        (("run", "main_trian"), "did you mean 'main_train'?"),
    ],
)
def test_a_name_that_is_no_run_gets_the_run_that_is_meant(refused, runs, arguments, hint):
    assert hint in refused(*arguments)


def test_what_another_recipe_of_the_folder_made_is_pointed_to(command, refused, runs):
    assert command("run", "runs/tiny", "--until", "train_tokenizer", "--set", "run.seed=9")[0] == 0
    output = refused("sample", "runs/tiny", "--out", "new.png")
    assert "this run has no finished generator" in output
    assert "`robustok history runs/tiny` lists those of earlier recipes" in output


def test_paths_are_printed_as_they_were_given(command, runs, tmp_path):
    code, output, _ = command("run", "runs/tiny")
    assert code == 0
    assert "  runs/tiny/results.json\n" in output
    assert str(tmp_path) not in output
