"""A check of a file is made again only if it failed or the file changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustok_core.errors import RobustokError
from robustok_toolkit.checked_files import NotKnownYet, check_once


def test_a_file_that_passed_is_read_again_once_it_changes(tmp_path: Path) -> None:
    file, read = tmp_path / "weights", list[str]()
    for text in ("one", "one", "another", "another"):
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        check_once("reads it", [file], lambda: read.append(file.read_text()))
    assert read == ["one", "another"]


def test_a_file_that_did_not_pass_is_refused_each_time(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.touch()

    def refuse() -> None:
        raise RobustokError("this is empty", where=str(file))

    for _ in range(2):
        with pytest.raises(RobustokError, match="weights: this is empty"):
            check_once("refuses it", [file], refuse)


def test_what_could_not_be_checked_is_checked_the_next_time(tmp_path: Path) -> None:
    made = list[str]()

    def check() -> None:
        made.append("tried")
        if len(made) == 1:
            raise NotKnownYet

    for _ in range(3):
        check_once("is not known at first", [], check)
    assert made == ["tried", "tried"]
