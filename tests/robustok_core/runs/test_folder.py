"""The run folder: who may use it, what it names, and what it keeps."""

from __future__ import annotations

import errno
import os

from filelock import FileLock

import robustok_core.recipe.registry
import robustok_core.runs.files
import robustok_core.runs.folder
import robustok_core.runs.runner


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
