"""The run folder: who may use it, what it names, and what it keeps."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

import robustok_core.runs.files
import robustok_core.runs.folder
from robustok_core import RobustokError
from robustok_core.runs.files import read_json
from robustok_core.runs.folder import RunFolder, find_artifact
from robustok_core.runs.manifest import next_free


def test_an_out_folder_that_is_a_file_is_one_message(refused, recipe_file, tmp_path):
    (tmp_path / "out").write_text("")
    assert "error: out/tiny: cannot write: Not a directory" in refused("run", recipe_file(), "--out", "out", code=1)


def test_an_out_folder_without_permission_is_one_message(refused, recipe_file, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    file = recipe_file()
    monkeypatch.setattr(robustok_core.runs.folder.Path, "mkdir", refuse)
    output = refused("run", file, "--out", "out", code=1)
    assert output == "error: out/tiny: cannot write: Permission denied\n  hint: choose a folder you may write to\n"


def test_a_run_folder_without_permission_is_one_message(refused, recipe_file, monkeypatch):
    monkeypatch.setattr(robustok_core.runs.folder.os, "access", lambda *_: False)
    output = refused("run", recipe_file(), "--out", "out", code=1)
    assert output == "error: out/tiny: cannot write: Permission denied\n  hint: choose a folder you may write to\n"


def test_a_folder_that_is_not_a_run_is_left_alone(refused, recipe_file, tmp_path):
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    (tmp_path / "out" / "tiny" / "thesis.tex").write_text("mine")
    output = refused("run", recipe_file(), "--out", "out")
    assert "error: out/tiny: this exists and is not a run folder\n  hint: choose another --out\n" in output
    assert [path.name for path in (tmp_path / "out" / "tiny").iterdir()] == ["thesis.tex"]


def test_two_commands_cannot_use_one_run_folder(refused, command, recipe_file):
    assert command("run", recipe_file(), "--out", "out")[0] == 0
    with FileLock("out/tiny/.lock"):
        output = refused("run", recipe_file(), "--out", "out")
    assert "error: out/tiny: another command is using this folder\n  hint: wait for it" in output
    assert command("run", recipe_file(), "--out", "out")[0] == 0


MAKES = {"train": ["tokenizer"], "improve": ["tokenizer"], "sample": ["samples"]}


@pytest.fixture
def folder(tmp_path) -> Iterator[RunFolder]:
    """An open run folder."""
    folder = RunFolder(tmp_path / "run")
    folder.open()
    yield folder
    folder.close()


def current(folder: RunFolder, recipe: str, inputs: dict[str, Path] | None = None, **stages: str) -> None:
    """Makes a recipe the current one, with the fingerprint of each of its stages."""
    folder.make_current(recipe, stages, MAKES, inputs or {})


def finish(folder: RunFolder, stage: str, fingerprint: str) -> None:
    folder.stage(stage, fingerprint)["state"] = "done"
    for name in MAKES[stage]:
        folder.artifact(name, fingerprint).mkdir(parents=True)
    folder.save()


def history(folder: RunFolder) -> dict[str, str]:
    return {file.name: file.read_text() for file in (folder.path / "history").iterdir()}


def test_a_closed_folder_can_be_opened_again_and_has_its_record(folder):
    folder.stage("train", "a")["seconds"] = 2.0
    folder.save()
    folder.close()
    again = RunFolder(folder.path)
    again.open()
    assert again.record["stages"] == {"train-a": {"state": "new", "seconds": 2.0}}
    again.close()


def test_a_folder_is_opened_once_at_a_time(folder):
    with pytest.raises(RobustokError, match="another command is using this folder"):
        RunFolder(folder.path).open()


def test_a_folder_that_a_kill_left_before_its_first_record_can_be_opened(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".writing-run.json").write_text("{")
    folder = RunFolder(tmp_path)
    folder.open()
    folder.close()


def test_a_history_of_other_files_is_not_taken_for_what_a_kill_left(tmp_path):
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "rome.tex").touch()
    with pytest.raises(RobustokError, match="this exists and is not a run folder"):
        RunFolder(tmp_path).open()


def test_the_lock_has_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o002)
    try:
        folder = RunFolder(tmp_path)
        folder.open()
        folder.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o664


def test_a_lock_that_is_no_file_is_one_message(refused, recipe_file, tmp_path):
    (tmp_path / "out" / "tiny" / ".lock").mkdir(parents=True)
    assert "error: out/tiny/.lock: cannot write: Is a directory" in refused(
        "run", recipe_file(), "--out", "out", code=1
    )


def test_a_recipe_that_stays_the_same_moves_nothing_to_history(folder):
    current(folder, "first", train="a")
    (folder.path / "results.json").write_text("{}")
    current(folder, "first", train="a")
    assert (folder.path / "results.json").read_text() == "{}"
    assert not (folder.path / "history").exists()


def test_a_changed_recipe_moves_the_old_one_and_its_results_to_history(folder):
    current(folder, "first", train="a")
    (folder.path / "results.json").write_text("of the first")
    current(folder, "second", train="b")
    assert (folder.path / "recipe.toml").read_text() == "second"
    assert not (folder.path / "results.json").exists()
    assert history(folder) == {"recipe-1.toml": "first", "results-1.json": "of the first"}


def test_history_keeps_every_earlier_recipe_under_a_number(folder):
    for number in range(4):
        current(folder, f"recipe {number}", train=str(number))
    assert history(folder) == {f"recipe-{number + 1}.toml": f"recipe {number}" for number in range(3)}


def test_a_record_of_the_current_recipe_names_its_stages_and_those_of_earlier_ones_stay(folder):
    current(folder, "first", train="a")
    current(folder, "second", train="b", sample="c")
    record = read_json(folder.path / "run.json")
    assert record["current"] == {"train": "b", "sample": "c"}
    assert record["stages"].keys() == {"train-a", "train-b", "sample-c"}
    assert record["stages"]["sample-c"]["makes"] == ["samples"]


def test_the_artifact_of_the_current_recipe_is_found(folder):
    current(folder, "first", train="a")
    finish(folder, "train", "a")
    assert find_artifact(folder.path, "tokenizer") == folder.artifact("tokenizer", "a")


def test_the_last_artifact_that_a_recipe_makes_is_found(folder):
    current(folder, "first", train="a", improve="b")
    finish(folder, "train", "a")
    finish(folder, "improve", "b")
    assert find_artifact(folder.path, "tokenizer") == folder.artifact("tokenizer", "b")


def test_an_artifact_that_a_later_stage_has_yet_to_make_again_is_refused_and_the_earlier_one_is_named(folder):
    current(folder, "first", train="a", improve="b")
    finish(folder, "train", "a")
    with pytest.raises(RobustokError, match="this run has no finished tokenizer") as caught:
        find_artifact(folder.path, "tokenizer")
    assert caught.value.hint.endswith(f"or name the tokenizer of an earlier stage: {folder.artifact('tokenizer', 'a')}")


def test_an_artifact_of_an_earlier_recipe_is_never_found(folder):
    current(folder, "first", train="a")
    finish(folder, "train", "a")
    current(folder, "second", train="b")
    with pytest.raises(RobustokError, match="this run has no finished tokenizer") as caught:
        find_artifact(folder.path, "tokenizer")
    assert caught.value.hint.startswith("let the run finish first; `robustok history ")


def test_an_artifact_that_the_run_loaded_is_found_where_it_lies(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "tokenizer-a"
    elsewhere.mkdir(parents=True)
    current(folder, "first", {"tokenizer": elsewhere}, sample="c")
    assert find_artifact(folder.path, "tokenizer").samefile(elsewhere)


def test_an_artifacts_own_folder_is_found_and_one_of_another_kind_is_refused(tmp_path):
    (tmp_path / "component.json").write_text('{"kind": "tokenizer"}')
    assert find_artifact(tmp_path, "tokenizer") == tmp_path
    with pytest.raises(RobustokError, match="this holds a tokenizer, not a generator"):
        find_artifact(tmp_path, "generator")


def test_a_folder_that_is_neither_a_run_nor_an_artifact_is_refused(tmp_path):
    with pytest.raises(RobustokError, match="this is not a run folder"):
        find_artifact(tmp_path, "tokenizer")


def test_the_next_free_folder_is_numbered_from_2(tmp_path):
    assert next_free(tmp_path / "run") == tmp_path / "run"
    for name in ("run", "run-2", "run-4"):
        (tmp_path / name).mkdir()
    assert next_free(tmp_path / "run") == tmp_path / "run-3"


def test_history_overwrites_nothing_where_a_file_of_it_was_taken_out(tmp_path):
    folder = RunFolder(tmp_path)
    for text in "abc":
        folder.write_current("recipe.toml", text)
    (tmp_path / "history" / "recipe-1.toml").unlink()
    for text in "de":
        folder.write_current("recipe.toml", text)
    assert {file.name: file.read_text() for file in (tmp_path / "history").iterdir()} == {
        "recipe-2.toml": "b",
        "recipe-3.toml": "c",
        "recipe-4.toml": "d",
    }
