"""The shared cache is addressed by content, and read only if all processes see the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import robustok_toolkit.shared_cache
from robustok_core.runs.files import write_tensors
from robustok_toolkit.shared_cache import CacheEntry

TENSORS = {"mean": torch.arange(3.0)}


def entry(folder: Path | None, *content: Any) -> CacheEntry:
    return CacheEntry(folder, "name", lambda: content)


def test_tensors_are_found_by_the_same_content_only(tmp_path: Path) -> None:
    assert entry(tmp_path, "images", 3).read() is None
    entry(tmp_path, "images", 3).keep(TENSORS)
    tensors = entry(tmp_path, "images", 3).read()
    assert tensors is not None
    assert torch.equal(tensors["mean"], TENSORS["mean"])
    assert entry(tmp_path, "images", 4).read() is None
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("name_")


def test_without_a_folder_nothing_is_computed_read_or_written() -> None:
    def fail() -> tuple[Any, ...]:
        raise AssertionError("fingerprints take time")

    without = CacheEntry(None, "name", fail)
    without.keep(TENSORS)
    assert without.read() is None


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    entry(tmp_path, 1).keep(TENSORS)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    entry(tmp_path, 1).keep({"mean": torch.zeros(3)})
    assert file.stat().st_mtime_ns == before


def test_a_file_that_another_process_does_not_see_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry(tmp_path, 1).keep(TENSORS)
    monkeypatch.setattr(robustok_toolkit.shared_cache, "all_sum", lambda missing: missing + 1)
    assert entry(tmp_path, 1).read() is None


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustok_toolkit.shared_cache, "rank", lambda: 1)
    entry(tmp_path, 1).keep(TENSORS)
    assert list(tmp_path.iterdir()) == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def turn_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def write_without_hash(file: Path) -> None:
    write_tensors(file, TENSORS)


@pytest.mark.parametrize("damage", [cut, turn_a_bit, write_without_hash, lambda file: file.write_bytes(b"")])
def test_a_damaged_file_is_computed_again_and_replaced(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    entry(tmp_path, 1).keep(TENSORS)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    damage(file)
    again = entry(tmp_path, 1)
    assert again.read() is None
    assert f"{file}: is computed again" in caplog.text
    again.keep(TENSORS)
    assert file.read_bytes() == whole
    assert entry(tmp_path, 1).read() is not None
