"""Files that are either whole or not there: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustok_core.errors import RunError

_ASIDE = ".writing-"


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns what the system says of a failed write into one message.

    Raises:
        RunError: where the disk is full, a folder is not writable, or the system refuses otherwise.
    """
    try:
        yield
    except SafetensorError as error:
        raise RunError(f"cannot write: {error}", where=str(target), hint="is the disk full?") from error
    except OSError as error:
        hint = {errno.ENOSPC: "free some space and run again", errno.EACCES: "choose a folder you may write to"}
        reason = error.strerror or str(error)
        raise RunError(f"cannot write: {reason}", where=str(target), hint=hint.get(error.errno or 0)) from error


def aside(target: Path, writer: str = "") -> Path:
    """Where something is written before it takes the name `target`: beside it, under a name of its writer's own."""
    return target.with_name(f"{_ASIDE}{target.name}{writer and '.'}{writer}")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it takes the name `target` only when the block is done without an error.

    A folder that already stands there is replaced: callers name folders by what is in them.
    """
    unfinished = aside(target)
    with writing(target):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    try:
        with writing(target):
            yield unfinished
            for file in unfinished.rglob("*"):
                if file.is_file():
                    _flush(file)
            if target.exists():
                shutil.rmtree(target)
            unfinished.rename(target)
            _flush(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def new_file(target: Path, *, writer: str = "") -> Iterator[Path]:
    """A file to write; it takes the name `target` only when the block is done without an error.

    A file that already stands there is replaced, and stays whole until then. The folder is made where it is missing.

    Args:
        target: the file's name in the end.
        writer: tells apart those that may write the same target at the same time, such as a process's number: each
            fills a file of its own, and the last to finish leaves the target.

    Raises:
        RunError: the disk refuses.
    """
    unfinished = aside(target, writer)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            _flush(unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Writes a text file in one piece."""
    with new_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes a JSON file in one piece."""
    write_text(target, json.dumps(value, indent=2, sort_keys=False) + "\n")


def read_json(file: Path) -> Any:
    """Reads a JSON file.

    Raises:
        RunError: where it is missing or damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot be read: {error}", where=str(file)) from error


def write_tensors(file: Path, tensors: Mapping[str, Tensor], *, writer: str = "") -> None:
    """Writes tensors as safetensors in one piece; two names of one tensor are written twice.

    `writer` is as for `new_file`.
    """
    held = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with new_file(file, writer=writer) as unfinished:
        save_file(held, unfinished)


def read_tensors(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        RunError: where it is missing or damaged.
    """
    try:
        with safe_open(file, framework="pt", device=device) as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot be read: {error}", where=str(file), hint="is it a whole safetensors file?") from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
