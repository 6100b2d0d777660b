"""Outputs of commands: complete under a free name, or absent; what another program wrote stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from robustok_core.errors import RobustokError, RunError
from robustok_toolkit.new_files import new_output, require_new


def test_a_file_and_a_folder_appear_when_the_block_ends(tmp_path):
    for out in (tmp_path / "grid.png", tmp_path / "samples"):
        with new_output(out) as unfinished:
            assert unfinished.suffix == out.suffix, "the ending says what is to be written"
            unfinished.mkdir() if out.name == "samples" else unfinished.write_text("mine")
            assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "samples"]
    assert (tmp_path / "grid.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "folder", "kept"),
    [("grid.png", False, "grid-3.png"), ("samples", True, "samples-3"), ("guided-1.5", True, "guided-1.5-3")],
)
def test_what_appeared_meanwhile_stays_and_what_was_made_is_beside_it(tmp_path, name, folder, kept):
    out = tmp_path / name
    second = out.with_name(kept.replace("-3", "-2"))

    def write(path: Path, text: str) -> None:
        if folder:
            path.mkdir()
        (path / "file" if folder else path).write_text(text)

    def work() -> None:
        with new_output(out) as unfinished:
            write(unfinished, "mine")
            write(out, "theirs")
            write(second, "theirs too")

    with pytest.raises(RunError) as caught:
        work()
    assert str(out) in str(caught.value)
    assert str(out.with_name(kept)) in str(caught.value.hint)
    texts = {path.name: (path / "file" if folder else path).read_text() for path in tmp_path.iterdir()}
    assert texts == {name: "theirs", second.name: "theirs too", kept: "mine"}


@pytest.mark.parametrize("other_name", ["samples", "others"])
def test_two_that_write_to_one_place_are_kept_apart(tmp_path, other_name):
    with new_output(tmp_path / "samples") as unfinished:
        (unfinished / "first").mkdir(parents=True)
        with new_output(tmp_path / other_name) as other:
            (other / "second").mkdir(parents=True)
        (tmp_path / other_name).rename(tmp_path / "theirs")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "samples",
        "samples/first",
        "theirs",
        "theirs/second",
    ]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("theirs", ["file", "folder", "dangling link"])
def test_what_appears_between_the_look_and_the_renaming_stays(tmp_path, monkeypatch, folder, theirs):
    out, looked = tmp_path / "out", os.path.lexists

    def look(path: Path) -> bool:
        found = looked(path)
        if path == out and not found:
            make = {"file": out.touch, "folder": (out / "a").mkdir, "dangling link": lambda: out.symlink_to("nowhere")}
            make[theirs](**({"parents": True} if theirs == "folder" else {}))
        return found

    def work() -> None:
        with new_output(out) as unfinished:
            unfinished.mkdir() if folder else unfinished.write_text("mine")
            monkeypatch.setattr("os.path.lexists", look)

    with pytest.raises(RunError, match="meanwhile"):
        work()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-2"]
    assert (tmp_path / "out-2").is_dir() == folder
    assert {"file": out.is_file, "folder": (out / "a").is_dir, "dangling link": out.is_symlink}[theirs]()


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("os.link", no_links)
    with new_output(tmp_path / "grid.png") as unfinished:
        unfinished.write_text("mine")
    assert (tmp_path / "grid.png").read_text() == "mine"


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_nothing(tmp_path, folder):
    def stop() -> None:
        with new_output(tmp_path / "out") as unfinished:
            unfinished.mkdir() if folder else unfinished.write_text("mine")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    require_new(tmp_path / "new" / "folder" / "grid.png")
    monkeypatch.chdir(tmp_path)
    require_new(Path("grid.png"))
    with pytest.raises(RobustokError, match="cannot write: .*file is no folder"):
        require_new(tmp_path / "file" / "new" / "grid.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing is made"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_beforehand(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o555)
    with pytest.raises(RobustokError, match="Permission denied"):
        require_new(tmp_path / "theirs" / "grid.png")
