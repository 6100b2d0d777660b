"""Outputs of commands: complete under a free name, or absent; what another program wrote stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustok_core.errors import RobustokError
from robustok_toolkit.new_files import new_output


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

    with pytest.raises(RobustokError) as caught:
        work()
    assert str(out) in str(caught.value)
    assert str(out.with_name(kept)) in str(caught.value.hint)
    texts = {path.name: (path / "file" if folder else path).read_text() for path in tmp_path.iterdir()}
    assert texts == {name: "theirs", second.name: "theirs too", kept: "mine"}


def test_two_processes_that_write_to_one_name_are_kept_apart(tmp_path, monkeypatch):
    with new_output(tmp_path / "samples") as unfinished:
        (unfinished / "first").mkdir(parents=True)
        with monkeypatch.context() as patched:
            patched.setattr("os.getpid", lambda: 1)
            with new_output(tmp_path / "samples") as other:
                (other / "second").mkdir(parents=True)
        (tmp_path / "samples").rename(tmp_path / "theirs")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "samples",
        "samples/first",
        "theirs",
        "theirs/second",
    ]


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_nothing(tmp_path, folder):
    def stop() -> None:
        with new_output(tmp_path / "out") as unfinished:
            unfinished.mkdir() if folder else unfinished.write_text("mine")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert list(tmp_path.iterdir()) == []
