"""Writes the images of one shard, one after another: an array, or a tar file in webdataset's layout."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from robustok_core.runs.files import new_file
from robustok_toolkit.prepared_files import Prepared
from robustok_toolkit.resumable_shards import Shard

#: Writes an image, as it is stored, with its number in the split and its label; returns the offset of its first byte.
Add = Callable[[bytes, int, int], int]


@contextmanager
def new_shard(file: Path, shard: Shard, prepared: Prepared) -> Iterator[Add]:
    """Opens the file of a shard's images, which appears once the block ends without an error.

    Raises:
        RunError: if it cannot be written.
    """
    with new_file(file) as aside, aside.open("wb") as opened:
        if prepared.format == "npy":
            yield _in_array(opened, (len(shard), prepared.image_size, prepared.image_size, 3))
        else:
            with tarfile.open(fileobj=opened, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                yield _in_tar(tar)


def tar_bytes(content: bytes) -> int:
    """How much of a tar file an image and its label take."""
    blocks = -(-len(content) // tarfile.BLOCKSIZE)
    return (blocks + 3) * tarfile.BLOCKSIZE  # two headers, and the label


def _in_array(opened: IO[bytes], shape: tuple[int, ...]) -> Add:
    """The images of a .npy file (n, S, S, 3), which `numpy.load(file, mmap_mode="r")` maps into memory."""
    np.lib.format.write_array_header_1_0(opened, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def add(content: bytes, _number: int, _label: int) -> int:
        offset = opened.tell()
        opened.write(content)
        return offset

    return add


def _in_tar(tar: tarfile.TarFile) -> Add:
    """NUMBER.webp and NUMBER.cls, without times and owners, so that the same images make the same file."""

    def member(name: str, content: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        offset = tar.offset + tarfile.BLOCKSIZE
        tar.addfile(info, io.BytesIO(content))
        return offset

    def add(content: bytes, number: int, label: int) -> int:
        offset = member(f"{number:09d}.webp", content)
        member(f"{number:09d}.cls", str(label).encode())
        return offset

    return add
