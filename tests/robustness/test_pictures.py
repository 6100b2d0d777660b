"""Damaged and hostile image files, shards and arrays are read, skipped, or refused in one message; no traceback."""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from project import recipe_of
from robustok_core.errors import RobustokError
from robustok_data.image_folder import ImageFolder, ImageFolderConfig
from robustok_data.npz import Npz, NpzConfig
from robustok_data.webdataset import WebDataset, WebDatasetConfig
from robustok_toolkit.cropped_images import batches_of
from robustok_toolkit.image_files import FolderImages, NpzImages
from tried import inputs, trying

#: What Pillow warns of while it reads damaged files.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@cache
def pictures() -> dict[str, bytes]:
    """A picture in each format and kind of pixels, with EXIF data where there can be some."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    deep = Image.fromarray(np.random.default_rng(1).integers(0, 2**16, (20, 24), dtype=np.uint16))
    tags = Image.Exif()
    tags[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "rgb.jpg": (noise, "JPEG", {"exif": tags}),
        "cmyk.jpg": (noise.convert("CMYK"), "JPEG", {}),
        "rgb.png": (noise, "PNG", {"exif": tags}),
        "palette.png": (noise.quantize(8), "PNG", {"transparency": 3}),
        "alpha.png": (noise.convert("LA"), "PNG", {}),
        "bits.png": (noise.convert("1"), "PNG", {}),
        "deep.png": (deep, "PNG", {}),
        "deep.tif": (deep, "TIFF", {}),
        "packed.tif": (noise, "TIFF", {"compression": "tiff_lzw", "exif": tags}),
        "cmyk.tif": (noise.convert("CMYK"), "TIFF", {}),
        "animated.gif": (noise.convert("P"), "GIF", {"save_all": True, "append_images": [noise.rotate(90)]}),
        "rgb.webp": (noise, "WEBP", {"exif": tags}),
        "rgb.bmp": (noise, "BMP", {}),
        "rgb.tga": (noise, "TGA", {}),
        "rgb.ppm": (noise, "PPM", {}),
    }
    if features.check("jpg_2000"):
        kinds["rgb.jp2"] = (noise, "JPEG2000", {})
    return {name: encoded(*kind) for name, kind in kinds.items()}


def encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@st.composite
def mutated(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """A file that is cut, has bytes changed (often in its header), or has some more or fewer."""
    content = bytearray(draw(contents))
    how = draw(st.sampled_from(["cut", "change", "change", "change", "remove", "insert"]))
    place = st.one_of(st.integers(0, min(len(content), 600) - 1), st.integers(0, len(content) - 1))
    if how == "cut":
        return bytes(content[: draw(place)])
    for at in draw(st.lists(place, min_size=1, max_size=5)):
        if how == "change":
            content[at] = draw(st.one_of(st.sampled_from([0, 255, content[at] ^ 128]), st.integers(0, 255)))
        elif how == "remove":
            del content[min(at, len(content)) : at + draw(st.integers(1, 20))]
            content = content or bytearray(b"x")
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=20))
    return bytes(content)


def quietly(read: Callable[[], object]) -> RobustokError | None:
    """Reads something; the only exception allowed to pass is the one that users see as a message."""
    refused = None
    try:
        read()
    except RobustokError as error:
        refused = error
    assert refused is None or refused.where, f"the message does not say which file it is about: {refused}"
    return refused


def whole(dataset: Any) -> None:
    for split in (dataset.train, dataset.validation):
        assert split.fingerprint
        split.load(range(len(split)))


@pytest.mark.soak
@inputs(120)
@given(
    name=st.sampled_from(sorted(pictures())),
    content=st.data(),
)
def test_a_mutated_picture_is_read_or_named_and_skipped(folder: Path, name: str, content: st.DataObject) -> None:
    root = folder / "pictures"
    for kept in ("a", "b"):
        (root / "class").mkdir(parents=True, exist_ok=True)
        (root / "class" / f"{kept}.png").write_bytes(pictures()["rgb.png"])
    for old in (root / "class").glob("m.*"):
        old.unlink()
    file = (root / "class" / "m").with_suffix(Path(name).suffix)
    file.write_bytes(content.draw(mutated(st.just(pictures()[name]))))
    with trying("an image file is damaged", name.encode() + file.read_bytes()):
        check_picture(root, file)


def check_picture(root: Path, file: Path) -> None:
    refused = quietly(lambda: whole(ImageFolder(ImageFolderConfig(path=str(root), image_size=16))))
    skipping = ImageFolder(ImageFolderConfig(path=str(root), image_size=16, on_bad_file="skip"))
    whole(skipping)
    left = len(skipping.train) + len(skipping.validation)
    assert left == (3 if refused is None else 2)
    encoding = quietly(lambda: list(batches_of([file], 16, 1)))
    assert (encoding is None) == (refused is None) or file.stat().st_size == 0
    for error in (refused, encoding):
        assert error is None or "m." in str(error)

    def evaluate() -> None:
        images = FolderImages(root)
        images.load(range(len(images)))

    quietly(evaluate)


@cache
def shard() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(5):
            for ending, content in (("png", pictures()["rgb.png"]), ("cls", b"0")):
                member = tarfile.TarInfo(f"{'long/' * 40 if number == 2 else ''}{number}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.soak
@inputs(120)
@given(content=mutated(st.builds(shard)))
def test_a_mutated_shard_loses_nothing_without_a_word(folder: Path, content: bytes) -> None:
    pytest.importorskip("webdataset")
    file = folder / "shard.tar"
    file.write_bytes(content)

    def opened(policy: Any) -> WebDataset:
        return WebDataset(WebDatasetConfig(train=str(file), image_size=16, on_bad_file=policy))

    def strict() -> None:
        dataset = opened("refuse")
        whole(dataset)
        assert len(dataset.train) + len(dataset.validation) == 5

    with trying("a shard is damaged", content):
        quietly(strict)
        quietly(lambda: whole(opened("skip")))


@cache
def arrays(compressed: bool) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(out, arr_0=pixels, arr_1=np.arange(6) % 2)
    return out.getvalue()


@pytest.mark.soak
@inputs(120)
@given(content=mutated(st.builds(arrays, st.booleans())))
def test_a_mutated_npz_file_is_read_or_named(folder: Path, content: bytes) -> None:
    file = folder / "arrays.npz"
    file.write_bytes(content)

    def evaluate() -> None:
        images = NpzImages(file)
        assert images.fingerprint
        images.load([0])

    with trying("an .npz file of images is damaged", content):
        quietly(lambda: whole(Npz(NpzConfig(path=str(file), image_size=16))))
        quietly(evaluate)


def test_a_name_in_a_note_is_shown_and_not_obeyed(command, tmp_path, monkeypatch):
    for number in range(8):
        (tmp_path / "set/class").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"set/class/{number}.png").write_bytes(pictures()["rgb.png"])
    (tmp_path / "set/class/\x1b[2J\nerror: forged.heic").write_bytes(b"x")
    data = {"use": "image_folder", "path": "set", "image_size": 32, "on_bad_file": "skip"}
    (tmp_path / "r.toml").write_text(tomli_w.dumps(recipe_of(data=data, train_tokenizer={"batch_size": 4})))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's
    code, _, notes = command("check", "r.toml")
    assert code == 0, notes
    name = "class/\\u001b[2J\\u000aerror: forged.heic"
    assert notes == f"set: left out 1 of 9 files that are not images (1 .heic): {name}\n"
