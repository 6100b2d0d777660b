"""What uses locks on file systems that have none."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from no_locks import NO_LOCKS, without_locks
from robustok_core.runs.folder import RunFolder, is_in_use
from robustok_core.runs.locks import lock_of
from robustok_data.cache import remembered

NOTE = "file locks do not work here: nothing keeps a second command out of this folder"


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_run_works_without_locks_and_says_so_once(number, command, recipe_file, tmp_path, monkeypatch):
    without_locks(monkeypatch, number)
    for _ in ("new", "there already"):
        code, output, errors = command("run", recipe_file(), "--out", "out")
        assert code == 0, errors
        assert " ".join((output + errors).split()).count(NOTE) == 1
    assert not is_in_use(tmp_path / "out" / "tiny")


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_no_folder_is_taken_for_one_that_is_in_use(number, tmp_path, monkeypatch):
    without_locks(monkeypatch, number)
    folder = RunFolder(tmp_path / "run")
    folder.open()
    assert not is_in_use(folder.path)
    folder.require_here()
    folder.close()
    assert not is_in_use(folder.path)


def test_a_folder_is_in_use_while_a_command_has_it_open(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open()
    assert folder.notes == []
    assert is_in_use(folder.path)
    folder.close()
    assert not is_in_use(folder.path)


def test_other_errors_of_the_file_system_are_told(refused, recipe_file, monkeypatch):
    without_locks(monkeypatch, 5)
    output = refused("run", recipe_file(), "--out", "out", code=1)
    assert "out/tiny/.lock: cannot write: Input/output error" in output


@pytest.mark.parametrize("number", NO_LOCKS)
def test_images_are_prepared_without_locks(number, command, tmp_path, monkeypatch):
    without_locks(monkeypatch, number)
    for split in range(8):
        folder = tmp_path / "pictures" / ("cat", "dog")[split % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), split, np.uint8)).save(folder / f"{split}.png")
    code, output, errors = command("prepare", "pictures", "cropped", "--set=data.image_size=16")
    assert code == 0, errors
    assert " ".join((output + errors).split()).count(NOTE) == 1


@pytest.mark.parametrize("number", NO_LOCKS)
def test_facts_about_the_data_are_cached_without_locks(number, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ROBUSTOK_CACHE", str(tmp_path / "cache"))
    without_locks(monkeypatch, number)
    assert [remembered("facts", lambda: 1), remembered("facts", lambda: 2)] == [1, 1]
    assert caplog.text == ""


def test_a_lock_keeps_its_file_as_the_umask_has_it(tmp_path):
    before = os.umask(0o002)
    try:
        with lock_of(tmp_path / ".lock"):
            assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o664
    finally:
        os.umask(before)
    assert isinstance(lock_of(tmp_path / ".lock"), FileLock)
