"""Atomic writes: files and folders are complete or absent, whatever happens during a write."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

import full_disk
import robustok_core.runs.files
from full_disk import half, leftovers
from robustok_core.errors import RunError
from robustok_core.runs.files import (
    move,
    new_file,
    new_folder,
    own_folder,
    read_json,
    read_tensors,
    remove_folder,
    remove_leftovers,
    write_tensors,
    write_text,
)


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "made" / "file.txt"
    with new_file(target) as unfinished:
        unfinished.write_text("first ")
        assert not target.exists()
        with unfinished.open("a") as opened:
            opened.write("second")
        assert not target.exists()
    assert target.read_text() == "first second"
    assert list(target.parent.iterdir()) == [target]


def test_an_old_file_stays_intact_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with new_file(target) as unfinished:
        unfinished.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(ValueError, match="broken"), new_file(target) as unfinished:  # noqa: PT012 (the writer fails)
        unfinished.write_text("half")
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "old"


def test_two_writers_use_separate_files_and_the_last_determines_the_target(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with new_file(target, writer="1") as first, new_file(target, writer="2") as second:
        first.write_text("one")
        second.write_text("two")
        assert first.read_text() == "one"
    assert target.read_text() == "one"  # whose block ended last
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_that_fails_does_not_affect_another(tmp_path: Path) -> None:
    target = tmp_path / "tensors.safetensors"
    with new_file(target, writer="1") as half:
        half.write_bytes(b"half")
        with pytest.raises(ValueError, match="broken"), new_file(target, writer="2") as other:  # noqa: PT012 (the writer fails)
            other.write_bytes(b"half")
            raise ValueError("broken")
        assert half.exists()
        write_tensors(target, {"held": torch.ones(2)}, writer="3")
        assert torch.equal(read_tensors(target)["held"], torch.ones(2))
        half.write_bytes(target.read_bytes())
    assert torch.equal(read_tensors(target)["held"], torch.ones(2))


def test_a_failed_write_is_one_message_that_names_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(robustok_core.runs.files, "_flush", full)
    with pytest.raises(RunError, match="cannot write: No space left on device") as caught:
        write_text(tmp_path / "file.txt", "text")
    assert caught.value.where == str(tmp_path / "file.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with new_folder(target) as unfinished:
        write_text(unfinished / "inside" / "file.txt", "text")
        assert not target.exists()
    assert (target / "inside" / "file.txt").read_text() == "text"
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files and folders that are flushed, in order."""
    paths: list[Path] = []
    flush = robustok_core.runs.files._flush
    monkeypatch.setattr(robustok_core.runs.files, "_flush", lambda path: (paths.append(path), flush(path)))
    return paths


def test_files_and_folders_are_flushed_before_they_are_renamed_and_their_folder_after(
    tmp_path: Path, flushed: list[Path]
) -> None:
    write_text(tmp_path / "file.txt", "text")
    assert flushed == [tmp_path / ".writing-file.txt", tmp_path]
    flushed.clear()
    with new_folder(tmp_path / "folder") as unfinished:
        (unfinished / "inside").mkdir()
        (unfinished / "inside" / "file.txt").touch()
    *first, unfinished_folder, parent = flushed
    assert set(first) == {unfinished / "inside", unfinished / "inside" / "file.txt"}
    assert (unfinished_folder, parent) == (unfinished, tmp_path)
    flushed.clear()
    move(tmp_path / "file.txt", tmp_path / "history" / "file.txt")
    assert set(flushed) == {tmp_path, tmp_path / "history"}


def test_a_folder_that_is_replaced_is_there_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    with new_folder(target) as unfinished:
        write_text(unfinished / "file.txt", "old")
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if to == target and path.name == ".writing-folder":
            full_disk.full()
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunError, match="No space left"), new_folder(target) as unfinished:
        write_text(unfinished / "file.txt", "new")
    assert (target / "file.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_could_not_be_filled_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), new_folder(tmp_path / "folder") as unfinished:  # noqa: PT012 (the writer fails)
        write_text(unfinished / "file.txt", "text")
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "broken"), [("save_file", half), ("_flush", full_disk.full)])
def test_a_full_disk_exits_with_1_and_leaves_no_partial_files(refused, command, recipe_file, monkeypatch, name, broken):
    with monkeypatch.context() as patched:
        patched.setattr(robustok_core.runs.files, name, broken)
        output = refused("run", recipe_file(train_tokenizer={"epochs": 2}), "--out", "out", code=1)
    assert "cannot write: No space left on device\n  hint: free some space and run again\n" in output
    out = Path("out/tiny")
    assert leftovers(out) == []
    assert list(out.glob("artifacts/*")) == list(out.glob("checkpoints/*/*")) == []
    code, _, output = command("run", recipe_file(train_tokenizer={"epochs": 2}), "--out", "out")
    assert code == 0, output


def test_a_folder_whose_removal_was_cut_off_is_gone_and_its_rest_is_swept(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "a.npy").write_text("a")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        remove_folder(folder)
    assert not folder.exists()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_writes_meanwhile_is_not_swept(tmp_path: Path) -> None:
    with own_folder(tmp_path / "samples") as own:
        remove_leftovers(tmp_path)
        assert own.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_json_file_of_a_terabyte_is_named_and_not_read(tmp_path):
    (tmp_path / "manifest.json").touch()
    os.truncate(tmp_path / "manifest.json", 10**12)
    with pytest.raises(RunError, match=r"manifest\.json: it has 1,000,000,000,000 bytes"):
        read_json(tmp_path / "manifest.json")
