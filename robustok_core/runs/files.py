"""Atomic writes: files are written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustok_core.errors import RunError

_ASIDE = ".writing-"
_OWN = f"{_ASIDE}own-"
_DAMAGED = "the file is damaged, or not a JSON file"
_LARGEST_JSON = 2**28
#: In one safetensors file; the largest models have some thousands. More take minutes to read.
_MOST_TENSORS = 100_000


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns a failed write into one message.

    Raises:
        RunError: if the disk is full, a folder is not writable, or the write fails otherwise.
    """
    where = str(Path(*(part.removeprefix(_ASIDE) for part in target.parts if not part.startswith(_OWN))))
    try:
        yield
    except SafetensorError as error:
        raise RunError(f"cannot write: {error}", where=where, hint="is the disk full?") from error
    except OSError as error:
        hint = {errno.ENOSPC: "free some space and run again", errno.EACCES: "choose a folder you may write to"}
        reason = error.strerror or str(error)
        raise RunError(f"cannot write: {reason}", where=where, hint=hint.get(error.errno or 0)) from error


def aside(target: Path, writer: str = "") -> Path:
    """The temporary path, beside `target` and unique to the writer, that is renamed to `target` once complete."""
    return target.with_name(f"{_ASIDE}{target.name}{writer and '.'}{writer}")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives a folder to fill; it is renamed to `target` only if the block ends without an error.

    An existing folder is replaced: callers name folders by their content. A kill between the two renamings leaves
    neither the old folder nor the new one.
    """
    unfinished = aside(target)
    with writing(target):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    try:
        with writing(target):
            yield unfinished
            _flush_below(unfinished)
            _replace_folder(target, unfinished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def own_folder(target: Path) -> Iterator[Path]:
    """Gives a new folder beside `target` that nothing else writes to; it is removed when the block ends."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_OWN, dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace_folder(target: Path, new: Path) -> None:
    old = aside(target, "removed")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
        _flush_folder(target.parent)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder, if there is one; after a kill it is either there or gone, never half there."""
    if folder.exists():
        with writing(folder):
            leftover = aside(folder, "removed")
            shutil.rmtree(leftover, ignore_errors=True)
            folder.rename(leftover)
            shutil.rmtree(leftover, ignore_errors=True)


def move(path: Path, target: Path) -> None:
    """Renames a file or folder, perhaps into another folder; not lost if the power goes after the call."""
    with writing(target):
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        for folder in {target.parent, path.parent}:
            _flush_folder(folder)


def move_beside(path: Path, target: Path) -> Path:
    """Renames to `target`, or to the first name with a number that is free (out-2.png); whatever appears, stays.

    Returns:
        The new name.
    """
    stem, suffix = (target.name, "") if path.is_dir() else (target.stem, target.suffix)
    numbered = (target.with_name(f"{stem}-{number}{suffix}") for number in itertools.count(2))
    with writing(target):
        free = next(name for name in itertools.chain([target], numbered) if _takes(path, name))
        _flush_folder(free.parent)
    return free


def _takes(path: Path, name: Path) -> bool:
    """Renames a file or folder unless the new name is taken; returns whether it was free."""
    if os.path.lexists(name):
        return False
    try:
        if path.is_dir():
            path.rename(name)  # which replaces at most an empty folder
        else:
            os.link(path, name)
            path.unlink()
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        if path.is_dir() or error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        path.rename(name)  # this file system has no hard links
    return True


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left of unfinished writes and removals in a folder that nobody else writes to."""
    for leftover in folder.glob(f"{_ASIDE}*"):
        if leftover.name.startswith(_OWN):  # a command may be writing there
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def new_file(target: Path, *, writer: str = "") -> Iterator[Path]:
    """Gives a file to write; it is renamed to `target` only if the block ends without an error.

    An existing file stays intact until it is replaced. Missing folders are created.

    Args:
        target: the final path.
        writer: distinguishes writers that may write the same target at the same time, for example by process number:
            each writes its own temporary file, and the last to finish determines the target.

    Raises:
        RunError: if the write fails.
    """
    unfinished = aside(target, writer)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            _flush(unfinished)
            unfinished.replace(target)
            _flush_folder(target.parent)
        finally:
            unfinished.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Writes a text file atomically."""
    with new_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(target, json.dumps(value, indent=2, sort_keys=False) + "\n")


def check_regular(file: Path) -> None:
    """Refuses a path that would be read without end, such as a pipe or a device.

    Raises:
        RunError: if it is no file, or cannot be looked at.
    """
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise RunError(f"cannot be read: it is {kind}, not a file", where=str(file))


def read_json(file: Path) -> Any:
    """Reads a JSON file.

    Raises:
        RunError: if the file is missing or damaged.
    """
    check_regular(file)
    if (size := file.stat().st_size) > _LARGEST_JSON:
        raise RunError(f"it has {size:,} bytes, more than any such file", where=str(file), hint=_DAMAGED)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    except RecursionError as error:
        raise RunError("cannot be read: it is nested too deeply", where=str(file), hint=_DAMAGED) from error
    except ValueError as error:  # also text that is not UTF-8, and numbers of more digits than Python reads
        raise RunError(f"cannot be read: {error}", where=str(file), hint=_DAMAGED) from error


def write_tensors(file: Path, tensors: Mapping[str, Tensor], *, writer: str = "") -> None:
    """Writes a safetensors file atomically; a tensor with two names is written twice.

    `writer`: see `new_file`.
    """
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with new_file(file, writer=writer) as unfinished:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # as the umask has it; safetensors makes a file that only its owner can read
        save_file(copies, unfinished)
        unfinished.chmod(mode)


def read_tensors(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        RunError: if the file is missing or damaged.
    """
    with _opened_tensors(file, device) as (opened, names):
        return {name: opened.get_tensor(name) for name in names}


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, from its header; raises what `read_tensors` does."""
    with _opened_tensors(file) as (opened, names):
        return {name: tuple(opened.get_slice(name).get_shape()) for name in names}


def read_rows(file: Path, rows: Mapping[str, slice]) -> dict[str, Tensor]:
    """Reads the given rows of the given tensors from a safetensors file, and no others; raises as `read_tensors`."""
    with _opened_tensors(file) as (opened, _):
        return {name: opened.get_slice(name)[wanted] for name, wanted in rows.items()}


@contextmanager
def _opened_tensors(file: Path, device: str = "cpu") -> Iterator[tuple[Any, Sequence[str]]]:
    check_regular(file)
    try:
        with safe_open(file, framework="pt", device=device) as opened:
            names = opened.keys()
            if len(names) > _MOST_TENSORS:
                raise ValueError(f"it claims to hold {len(names):,} tensors, more than any model has")
            yield opened, names
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    except Exception as error:  # SafetensorError, and whatever a data type raises that torch does not have
        hint = "the file is damaged, or not a safetensors file"
        raise RunError(f"cannot be read: {error}", where=str(file), hint=hint) from error


def _flush_below(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    """Flushes the names in a folder; some file systems cannot, and some folders may be written to but not read."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES):
            raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
