"""Reads arrays of .npz files without trusting them: no pickles, nothing larger than its file, one message."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from robustok_core.errors import RobustokError

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@frozen
class ArrayInfo:
    """What the header of an array says, and where its values are.

    Attributes:
        offset: the first byte of the values in the file; None if they cannot be mapped.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a .npz file.

    Raises:
        RobustokError: the file is missing or damaged.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def find_array(path: Path, name: str) -> ArrayInfo:
    """Looks up an array without reading its values.

    Raises:
        RobustokError: the file is missing or damaged, or has no such array.
    """
    with _opened(path) as archive:
        member = _member(archive, name, path)
        with archive.open(member) as opened:
            shape, column_major, dtype, header = _header(opened, member)
        if member.compress_type != zipfile.ZIP_STORED or column_major:
            return ArrayInfo(shape, dtype, None)
        with path.open("rb") as raw:
            raw.seek(member.header_offset)
            name_length, extra_length = struct.unpack("<26x2H", raw.read(30))
        return ArrayInfo(shape, dtype, member.header_offset + 30 + name_length + extra_length + header)


def whole_array(path: Path, name: str) -> NDArray[Any]:
    """Reads an array into memory.

    Raises:
        RobustokError: the file is missing or damaged, or has no such array.
    """
    with _opened(path) as archive:
        member = _member(archive, name, path)
        with archive.open(member) as opened:
            _header(opened, member)
        with archive.open(member) as opened:
            array: NDArray[Any] = np.lib.format.read_array(opened, allow_pickle=False)
            opened.read()  # the checksum is compared at the end
        return array


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise RobustokError("there is no such file", where=str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except RobustokError:
        raise
    except Exception as error:  # zipfile, its decompressors and numpy raise many types for damaged files
        what = f"this is not a readable .npz file ({str(error) or type(error).__name__})"
        hint = "is it complete? The index of a .npz file is at its end"
        raise RobustokError(what, where=str(path), hint=hint) from error


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> zipfile.ZipInfo:
    if f"{name}.npy" not in archive.namelist():
        found = ", ".join(file.removesuffix(".npy") for file in archive.namelist()) or "none"
        raise RobustokError(f"no array {name}", where=str(path), hint=f"arrays found: {found}")
    return archive.getinfo(f"{name}.npy")


def _header(opened: IO[bytes], member: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and the length of the header, of an array that fits its file."""
    version = np.lib.format.read_magic(opened)
    if version not in _READERS:
        raise ValueError(f"unknown version {version} of an array header")
    shape, column_major, dtype = _READERS[version](opened)
    header = opened.tell()
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects")
    if header + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"the length of {member.filename.removesuffix('.npy')} does not match its header")
    return shape, column_major, dtype, header
