"""Which files of a folder are taken for images, and what is said about the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from robustok_core.errors import RobustokError
from robustok_toolkit.image_search import images_of_folder, search


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(folder: Path) -> list[str]:
    return sorted(image.name for image in search(folder).images)


def test_every_usual_ending_is_read_and_the_rest_is_counted_by_ending(tmp_path: Path) -> None:
    put(tmp_path, "a.gif", "b.jfif", "c.JPG", "in/d.webp", "e.heic", "in/f.heic", "g.txt", "README", ".hidden.png")
    (tmp_path / "h.png").touch()
    (tmp_path / "i.png").symlink_to("nowhere")
    found = images_of_folder(tmp_path)
    assert [image.name for image in found.images] == ["a.gif", "b.jfif", "c.JPG", "in/d.webp"]
    reasons = "2 .heic, 1 .txt, 1 broken link, 1 empty, 1 hidden, 1 without an ending"
    assert found.note == f"4 of 11 files are read; passed over: {reasons}"


def test_nothing_is_said_about_hidden_files_alone(tmp_path: Path) -> None:
    put(tmp_path, "a.png", ".DS_Store")
    assert images_of_folder(tmp_path).note is None


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, "a.heic", "b.heic")
    with pytest.raises(RobustokError, match=r"no images in this folder .0 of 2 files are read; passed over: 2 .heic"):
        images_of_folder(tmp_path)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/1.png", "elsewhere/in/2.png", "set/0.png")
    (tmp_path / "set/more").symlink_to("../elsewhere")
    (tmp_path / "set/again").symlink_to("../elsewhere")
    assert names(tmp_path / "set") == ["0.png", "again/1.png", "again/in/2.png"]
    assert search(tmp_path / "set").note is not None


@pytest.mark.parametrize("target", [".", "..", "../..", "inside", "loop"])
def test_links_that_lead_back_do_not_loop(tmp_path: Path, target: str) -> None:
    put(tmp_path, "set/0.png", "set/inside/1.png", "other.png")
    (tmp_path / "set/loop").symlink_to(target)
    (tmp_path / "set/inside/loop").symlink_to("../inside")
    assert names(tmp_path / "set") == ["0.png", "inside/1.png"]


def test_a_real_folder_keeps_its_name_beside_a_link_to_it(tmp_path: Path) -> None:
    put(tmp_path, "z/1.png")
    (tmp_path / "a").symlink_to("z")
    assert names(tmp_path) == ["z/1.png"]


def test_what_would_block_or_is_a_folder_is_not_taken_for_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    put(tmp_path, "IMG_1.jpg/2.png")
    assert names(tmp_path) == ["IMG_1.jpg/2.png"]
    assert "1 pipe or device" in (search(tmp_path).note or "")


def test_size_and_time_are_those_of_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (image,) = search(tmp_path).images
    state = (tmp_path / "a.png").stat()
    assert (image.path, image.size, image.mtime_ns) == (str(tmp_path / "a.png"), state.st_size, state.st_mtime_ns)
