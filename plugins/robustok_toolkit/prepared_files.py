"""Prepared images: cropped once and stored as 8-bit pixels, in shards with an index and checksums.

A folder of prepared images holds `prepared.json`, which is written first; for each shard its images (`STEM.npy`, or
`STEM.tar` of lossless WebP files in webdataset's layout), its index (`STEM.index.npy`) and its manifest; and
`manifest.json`, which is written last.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Literal

import attrs
import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray
from PIL import Image

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.files import write_json
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.manifest import MANIFEST, difference
from robustok_core.runs.records import read_record
from robustok_core.runs.run_record import FileRecord
from robustok_toolkit.array_files import read_array
from robustok_toolkit.resumable_shards import Shard, cut

#: How pixels are stored: as they are, or compressed without loss.
Format = Literal["npy", "webp"]
#: What is being prepared: written first, as the manifest is written last.
DESCRIPTION = "prepared.json"
#: The columns of an index, int64 (n, 4): the checksum is of the decoded pixels, so that both formats have the same.
LABEL, OFFSET, SIZE, CHECKSUM = range(4)

_REPAIR = "run the same `robustok prepare` again: it makes damaged shards again"


@frozen(kw_only=True)
class PreparedSplit:
    """One split: how many images it has, and the fingerprint of the images that they were made from."""

    num_images: int = field(validator=validators.gt(0))
    source: str


@frozen(kw_only=True)
class Prepared:
    """What a folder of prepared images holds.

    Attributes:
        image_size: height and width. crop: how the images were cropped to it.
        format: how the pixels are stored. shard_images: how many images a shard holds.
        source: the data set that they were made from.
    """

    version: Literal[1] = 1
    image_size: int = field(validator=validators.gt(0))
    crop: Literal["center"] = "center"
    format: Format
    shard_images: int = field(validator=validators.gt(0))
    class_names: tuple[str, ...]
    source: str
    train: PreparedSplit
    validation: PreparedSplit

    @property
    def image_bytes(self) -> int:
        """The bytes of an image that is not compressed."""
        return self.image_size**2 * 3

    def shards(self, split: str) -> list[Shard]:
        """The shards of "train" or "validation"."""
        return cut(split, getattr(self, split).num_images, self.shard_images)

    def images_file(self, folder: Path, shard: Shard) -> Path:
        """The file of a shard's images."""
        return folder / f"{shard.stem}.{'npy' if self.format == 'npy' else 'tar'}"


@frozen(kw_only=True)
class PreparedManifest:
    """The content of manifest.json.

    Attributes:
        files: all files of all shards. checksum: of everything else.
    """

    prepared: Prepared
    files: dict[str, FileRecord]
    checksum: str


def index_file(folder: Path, shard: Shard) -> Path:
    """The file of a shard's index."""
    return folder / f"{shard.stem}.index.npy"


def write_prepared_manifest(folder: Path, prepared: Prepared, files: dict[str, FileRecord]) -> None:
    """Writes manifest.json, with which the folder is complete."""
    content = {
        "prepared": attrs.asdict(prepared),
        "files": {name: attrs.asdict(record) for name, record in files.items()},
    }
    write_json(folder / MANIFEST, {**content, "checksum": fingerprint_of(content)})


def read_prepared(folder: Path) -> PreparedManifest:
    """Reads manifest.json.

    Raises:
        RobustokError: if there is none, or it is damaged.
    """
    file = folder / MANIFEST
    if not folder.is_dir():
        raise RobustokError("there is no such folder", where=str(folder), hint="`robustok prepare DATA OUT` makes one")
    if (folder / DESCRIPTION).is_file() and not file.is_file():
        what = "these images are not complete: `robustok prepare` was stopped"
        raise RobustokError(what, where=str(folder), hint="run the same command again to go on")
    if not file.is_file():
        what = "this folder holds no prepared images: it has no manifest.json"
        raise RobustokError(what, where=str(folder), hint="`robustok prepare DATA OUT` makes them")
    manifest = read_record(PreparedManifest, file)
    content = attrs.asdict(manifest)
    if content.pop("checksum") != fingerprint_of(content):
        raise RunError("its content has changed since it was written", where=str(file), hint=_REPAIR)
    return manifest


def read_index(folder: Path, manifest: PreparedManifest, shard: Shard) -> NDArray[np.int64]:
    """The index (n, 4) of a shard, whose images are there in full; their content is checked when they are read.

    Raises:
        RunError: if a file of the shard is missing, or is not as the manifest says.
    """
    images, index = manifest.prepared.images_file(folder, shard), index_file(folder, shard)
    for file in (images, index):
        record = manifest.files.get(file.name)
        what = "the manifest does not list it" if record is None else _wrong_size(file, record)
        if record is not None and what is None and file == index:
            what = difference(file, record)
        if what is not None:
            raise RunError(f"damaged: {what}", where=str(file), hint=_REPAIR)
    return read_array(index, shape=(len(shard), 4), dtype=np.int64, hint=_REPAIR)


def _wrong_size(file: Path, record: FileRecord) -> str | None:
    try:
        size = file.stat().st_size
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if size == record.size else f"it has {size:,} bytes instead of {record.size:,}"


def decoded(content: bytes, prepared: Prepared) -> NDArray[np.uint8]:
    """(S, S, 3) uint8: the pixels of a stored image.

    Raises:
        Exception: of many types, if it is damaged.
    """
    shape = (prepared.image_size, prepared.image_size, 3)
    if prepared.format == "npy":
        return np.frombuffer(content, np.uint8).reshape(shape)
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as picture:
        pixels = np.asarray(picture)
    if pixels.shape != shape:
        raise ValueError(f"expected {shape}, found {pixels.shape}")
    return pixels


def checksum(pixels: NDArray[np.uint8]) -> int:
    """The CRC-32 of contiguous pixels."""
    return zlib.crc32(pixels.data)


def damaged_image(where: str, reason: str) -> RunError:
    """The message about an image that is not as it was prepared."""
    return RunError(f"this image is not as it was prepared: {reason}", where=where, hint=_REPAIR)
