"""Images stored as files or as byte ranges of larger files (tar shards)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from attrs import frozen

from robustok_data.pictures import StoredPictures


@frozen
class FileRange:
    """One image: `size` bytes of `file` from `offset`.

    Attributes:
        name: its name in the data set.
        mtime_ns: when the file was last changed.
    """

    file: str
    offset: int
    size: int
    name: str
    mtime_ns: int


class FileRangePictures(StoredPictures):
    """Images at known byte ranges of local files.

    The lists are stored as arrays: loader processes would copy millions of Python objects one by one.

    Args:
        file_ranges: the images, in order.
        place: the folder or pattern that they are from.
    """

    def __init__(self, file_ranges: Sequence[FileRange], place: str) -> None:
        files = sorted({piece.file for piece in file_ranges})
        number = {file: i for i, file in enumerate(files)}
        self._files = _Texts([os.fsencode(file) for file in files])
        self._file = np.array([number[piece.file] for piece in file_ranges], dtype=np.int64)
        self._offsets = np.array([piece.offset for piece in file_ranges], dtype=np.int64)
        self._sizes = np.array([piece.size for piece in file_ranges], dtype=np.int64)
        self._mtimes = np.array([piece.mtime_ns for piece in file_ranges], dtype=np.int64)
        self._names = _Texts([os.fsencode(piece.name) for piece in file_ranges])
        self.place = place

    def __len__(self) -> int:
        return len(self._sizes)

    def read(self, index: int) -> bytes:
        size = int(self._sizes[index])
        with open(self._path(index), "rb", opener=_without_waiting) as file:
            file.seek(int(self._offsets[index]))
            content = file.read(size)
        if len(content) < size:
            raise OSError(f"the file ends after {len(content)} of {size} bytes")
        return content

    def location(self, index: int) -> str:
        path, name = os.fsdecode(self._path(index)), os.fsdecode(self._names[index])
        return path if path.endswith(name) else f"{path}, {name}"

    def versions(self) -> list[str]:
        places = (self._offsets.tolist(), self._sizes.tolist(), self._mtimes.tolist())
        states = ((os.path.abspath(self._path(i)), *rest) for i, *rest in zip(range(len(self)), *places, strict=True))  # noqa: PTH100 (bytes)
        return [hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest() for state in states]

    @property
    def listing(self) -> bytes:
        digest = hashlib.blake2b(b"\0".join(self._names[index] for index in range(len(self))), digest_size=16)
        digest.update(self._sizes.data)
        return digest.digest()

    def _path(self, index: int) -> bytes:
        return self._files[int(self._file[index])]


class _Texts:
    """Byte strings of any length, in two arrays."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._joined = b"".join(texts)
        self._ends = np.cumsum([len(text) for text in texts], dtype=np.int64)

    def __getitem__(self, index: int) -> bytes:
        start = 0 if index == 0 else int(self._ends[index - 1])
        return self._joined[start : int(self._ends[index])]


def _without_waiting(path: str | bytes, flags: int) -> int:
    """Opens a file; if a pipe took its place since the data set was opened, it is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)
