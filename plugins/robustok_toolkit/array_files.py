"""Reads .npy and .npz files, ours and users', without unpickling objects or believing a damaged header."""

from __future__ import annotations

import math
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from robustok_core.errors import RobustokError, RunError
from robustok_core.values.machine_memory import usable_memory
from robustok_core.values.wording import reason_of

#: First bytes of an array, a zip file and an empty zip file.
_NPY, _ZIP = b"\x93NUMPY", (b"PK\3\4", b"PK\5\6")
_LARGEST_RATIO = 1100  # of deflate; what is larger than this allows is a damaged size
_HINT = "the file is damaged: make or download it again"
_COMPLETE = "is it complete? The index of a .npz file is at its end"


@frozen
class Header:
    """What an array's header says, and the number of bytes that the header takes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    column_major: bool
    size: int

    @property
    def nbytes(self) -> int:
        """The number of bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


@frozen
class ArrayInfo:
    """What the header of an array in a .npz file says, and where its values are.

    Attributes:
        offset: the first byte of the values in the file; None if they cannot be mapped.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None


def read_array(
    file: Path,
    *,
    shape: Sequence[int] | None = None,
    dtype: Any = None,
    mapped: bool = False,
    hint: str = _HINT,
) -> NDArray[Any]:
    """Reads a .npy file.

    Args:
        file: the file.
        shape: the shape that the array must have, if given.
        dtype: the type that it must have, if given.
        mapped: map the file into memory, read-only, instead of reading it.
        hint: what to do if the file is damaged or holds another array, for the message.

    Raises:
        RobustokError: if the file is missing, damaged, holds another array or Python objects.
    """
    with _readable(file, hint), file.open("rb") as opened:
        header = read_header(opened)
        left = os.fstat(opened.fileno()).st_size - header.size
        if left != header.nbytes:
            raise ValueError(f"its header says {header.nbytes:,} bytes of values, but there are {left:,}")
        found, expected = (header.shape, header.dtype), (header.shape, header.dtype)
        expected = (found[0] if shape is None else tuple(shape), found[1] if dtype is None else np.dtype(dtype))
        if found != expected:
            what = f"expected {expected[1]} {expected[0]}, found {found[1]} {found[0]}"
            raise RobustokError(f"this is another array: {what}", where=str(file), hint=hint)
        _check_memory(0 if mapped else header.nbytes)
        opened.seek(0)
        if mapped and header.nbytes:  # an empty file cannot be mapped
            # a plain array over the same memory: indexing a memmap is several times slower
            return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        return _checked_text(np.lib.format.read_array(opened, allow_pickle=False))


def read_arrays(file: Path, names: Sequence[str] | None = None, *, hint: str = _COMPLETE) -> dict[str, NDArray[Any]]:
    """Reads arrays of a .npz file by name; all of them without `names`, and only those there are.

    Raises:
        RobustokError: if the file is missing, damaged, encrypted or no .npz file, or an array holds Python objects.
    """
    with opened_arrays(file, hint=hint) as archive:
        there = {name: f"{name}.npy" for name in _names(archive)}
        wanted = there if names is None else {name: there[name] for name in names if name in there}
        return {name: _read_member(archive, member) for name, member in wanted.items()}


@contextmanager
def opened_arrays(file: Path, *, hint: str = _COMPLETE) -> Iterator[zipfile.ZipFile]:
    """Opens a .npz file; what fails within is one message.

    Raises:
        RobustokError: as `read_arrays`.
    """
    with _readable(file, hint, "this is not a readable .npz file"):
        with file.open("rb") as opened:
            start = opened.read(6)
        if start == _NPY:
            raise RobustokError("this file holds a single array", where=str(file), hint="save it with numpy.savez")
        if not start.startswith(_ZIP):
            raise ValueError("whatever its name, it does not start as one")
        with zipfile.ZipFile(file) as archive:
            if len(set(names := archive.namelist())) < len(names):
                raise ValueError("two of its members have the same name")
            yield archive


def array_names(file: Path) -> list[str]:
    """The names of the arrays in a .npz file.

    Raises:
        RobustokError: as `read_arrays`.
    """
    with opened_arrays(file) as archive:
        return _names(archive)


def whole_array(file: Path, name: str) -> NDArray[Any]:
    """Reads an array of a .npz file.

    Raises:
        RobustokError: as `read_arrays`, or there is no array of this name.
    """
    arrays = read_arrays(file, [name])
    if name not in arrays:
        raise RobustokError(f"no array {name}", where=str(file), hint=f"arrays found: {_listed(array_names(file))}")
    return arrays[name]


def find_array(file: Path, name: str) -> ArrayInfo:
    """Looks up an array of a .npz file without reading its values.

    Raises:
        RobustokError: as `whole_array`.
    """
    with opened_arrays(file) as archive:
        if name not in _names(archive):
            raise RobustokError(f"no array {name}", where=str(file), hint=f"arrays found: {_listed(_names(archive))}")
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as opened:
            header = _header_of(opened, member)
        if member.compress_type != zipfile.ZIP_STORED or header.column_major:
            return ArrayInfo(header.shape, header.dtype, None)
        with file.open("rb") as raw:
            raw.seek(member.header_offset)
            name_length, extra_length = struct.unpack("<26x2H", raw.read(30))
        offset = member.header_offset + 30 + name_length + extra_length + header.size
        return ArrayInfo(header.shape, header.dtype, offset)


def is_single_array(file: Path) -> bool:
    """Whether a file is a .npy file, by its first bytes."""
    with _readable(file, _HINT), file.open("rb") as opened:
        return opened.read(6) == _NPY


def read_header(opened: IO[bytes]) -> Header:
    """Reads an array's header; the file is then at its first value.

    Raises:
        ValueError: if it is damaged, or of an array of Python objects or with named fields.
    """
    readers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    start = opened.tell()
    try:
        version = np.lib.format.read_magic(opened)
        shape, column_major, dtype = readers[version](opened)
    except Exception as error:  # numpy parses headers with ast and tokenize, which raise many types
        raise ValueError(f"the header of the array is damaged ({str(error)[:100]})") from error
    if dtype.hasobject:
        raise ValueError("the array holds Python objects, and unpickling them may run code")
    if dtype.fields is not None or any(length < 0 for length in shape):
        raise ValueError(f"this is not a plain array: {dtype} {shape}")
    return Header(shape, dtype, column_major, opened.tell() - start)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _header_of(opened: IO[bytes], member: zipfile.ZipInfo) -> Header:
    """The header of an array whose length fits it."""
    header = read_header(opened)
    compressible = member.compress_type != zipfile.ZIP_DEFLATED or member.file_size <= _LARGEST_RATIO * (
        member.compress_size + 64
    )
    if header.nbytes + header.size != member.file_size or not compressible:
        raise ValueError(f"the length of {member.filename.removesuffix('.npy')} does not match its header")
    return header


def _read_member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    member = archive.getinfo(name)
    with archive.open(member) as opened:
        header = _header_of(opened, member)
        _check_memory(header.nbytes)
        values = np.frombuffer(opened.read(), header.dtype)  # reads to the end, where the checksum is compared
    return _checked_text(values.reshape(header.shape, order="F" if header.column_major else "C").copy())


def _checked_text(array: NDArray[Any]) -> NDArray[Any]:
    """The array; raises ValueError if it is of text with numbers that are no characters, on which numpy fails later."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        characters = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if characters.max() > sys.maxunicode:
            raise ValueError("it holds text with invalid characters")
    return array


def _check_memory(nbytes: int) -> None:
    memory = usable_memory()
    if nbytes > memory:
        raise ValueError(f"it needs {nbytes / 2**30:.4g} GiB, but this process may use {memory / 2**30:.4g} GiB")


@contextmanager
def _readable(file: Path, hint: str, what: str = "this array cannot be read") -> Iterator[None]:
    if not file.is_file():
        of_damage = hint in (_HINT, _COMPLETE)
        raise RobustokError("there is no such file", where=str(file), hint=None if of_damage else hint)
    try:
        yield
    except RobustokError:
        raise
    except MemoryError as error:
        raise RunError("there is not enough memory to read this array", where=str(file)) from error
    except Exception as error:  # zipfile, its decompressors and numpy raise many types for damaged files
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise RobustokError(f"{what} ({reason})", where=str(file), hint=hint) from error
