"""Images stored as files or as byte ranges of larger files (tar shards)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from robustok_data.pictures import Pictures


@frozen
class FileRange:
    """One image: `size` bytes of `file` from `offset`; `name` is its name in the data set."""

    file: str
    offset: int
    size: int
    name: str


class FileRangePictures(Pictures):
    """Images at known byte ranges of local files.

    The lists are stored as arrays: loader processes would copy millions of Python objects one by one.
    """

    def __init__(self, file_ranges: Sequence[FileRange]) -> None:
        files = sorted({piece.file for piece in file_ranges})
        number = {file: i for i, file in enumerate(files)}
        self._files = _packed([os.fsencode(file) for file in files])
        self._file = np.array([number[piece.file] for piece in file_ranges], dtype=np.int64)
        self._offsets = np.array([piece.offset for piece in file_ranges], dtype=np.int64)
        self._sizes = np.array([piece.size for piece in file_ranges], dtype=np.int64)
        self._names = _packed([os.fsencode(piece.name) for piece in file_ranges])

    def __len__(self) -> int:
        return len(self._sizes)

    def read(self, index: int) -> bytes:
        size = int(self._sizes[index])
        with open(self._path(index), "rb") as file:  # noqa: PTH123 (bytes path)
            file.seek(int(self._offsets[index]))
            content = file.read(size)
        if len(content) < size:
            raise OSError(f"the file ends after {len(content)} of {size} bytes")
        return content

    def location(self, index: int) -> str:
        path, name = os.fsdecode(self._path(index)), os.fsdecode(self._names[index])
        return path if path.endswith(name) else f"{path}, {name}"

    @property
    def listing(self) -> bytes:
        digest = hashlib.blake2b(b"\0".join(self._names.tolist()), digest_size=16)
        digest.update(self._sizes.data)
        return digest.digest()

    def _path(self, index: int) -> bytes:
        return bytes(self._files[self._file[index]])


def _packed(texts: Sequence[bytes]) -> NDArray[np.bytes_]:
    return np.array(texts, dtype=np.bytes_) if texts else np.empty(0, dtype="S1")
