"""Manifests: every difference from what was written is named, and a folder without one is taken as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.manifest import (
    MANIFEST,
    folder_damage,
    next_free,
    recorded_folder,
    set_aside,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a manifest of two files."""
    with recorded_folder(tmp_path / "folder") as aside:
        (aside / "below").mkdir()
        (aside / "below" / "b.bin").write_bytes(b"bytes")
        (aside / "a.txt").write_text("text")
    return tmp_path / "folder"


def test_a_manifest_lists_all_files_below_its_folder(folder):
    assert read_json(folder / MANIFEST)["files"].keys() == {"a.txt", "below/b.bin"}
    assert folder_damage(folder) is None


def test_a_folder_without_a_manifest_and_a_file_that_came_later_are_no_damage(folder):
    (folder / "notes.txt").write_text("mine")
    assert folder_damage(folder) is None
    (folder / MANIFEST).unlink()
    (folder / "a.txt").write_text("other")
    assert folder_damage(folder) is None
    assert str(folder_damage(folder, recorded=True)) == f"{folder / MANIFEST}: it is missing"


def test_damage_is_named_with_its_file(folder):
    (folder / "below" / "b.bin").write_bytes(b"bytez")
    assert str(folder_damage(folder)).endswith("below/b.bin: its content has changed since it was written")
    (folder / "below" / "b.bin").write_bytes(b"byte")
    assert str(folder_damage(folder)).endswith("below/b.bin: it has 4 bytes instead of 5")
    (folder / "a.txt").unlink()
    assert str(folder_damage(folder)).endswith("a.txt: it is missing")
    assert str(folder_damage(folder / "below" / "b.bin")).endswith("it is not a folder")
    assert str(folder_damage(folder / "nowhere")).endswith("it is gone")


@given(st.data())
def test_a_manifest_with_any_byte_changed_is_named_itself_or_means_the_same(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any") / "folder"
    with recorded_folder(folder) as aside:
        (aside / "a.txt").write_text("text")
    manifest = folder / MANIFEST
    content = bytearray(manifest.read_bytes())
    before = read_json(manifest)
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    manifest.write_bytes(content)
    damage = folder_damage(folder)
    assert damage.file == manifest if damage else read_json(manifest) == before


def test_a_manifest_that_names_a_device_is_not_read_from_it(folder):
    files = read_json(folder / MANIFEST)["files"]
    files["/dev/zero"] = files.pop("a.txt")
    from robustok_core.runs.fingerprints import fingerprint_of

    write_json(folder / MANIFEST, {"files": files, "checksum": fingerprint_of(files)})
    assert str(folder_damage(folder)) == "/dev/zero: it is not a file"


def test_what_is_set_aside_overwrites_nothing(tmp_path):
    for _ in range(3):
        (tmp_path / "x.npy").touch()
        set_aside(tmp_path / "x.npy")
    assert {path.name for path in tmp_path.iterdir()} == {f"damaged-x.npy{end}" for end in ("", "-2", "-3")}
    assert next_free(tmp_path / "damaged-x.npy").name == "damaged-x.npy-4"
