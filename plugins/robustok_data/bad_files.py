"""Checks of a split that is being opened: files that are not readable images, and the content of all files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from attrs import evolve

from robustok_core.errors import RobustokError
from robustok_core.values.wording import some_names
from robustok_data.cache import remembered_each
from robustok_data.pictures import FilesConfig, Pictures, Policy, SomePictures, StoredPictures, try_decode
from robustok_data.splits import Labelled
from robustok_toolkit.image_decoding import why_unreadable

_log = logging.getLogger(__name__)
_AT_ONCE = 4096  # images queued for the threads


def refuse_or_log(bad: Sequence[str], total: int, policy: Policy, where: str, what: str) -> None:
    """Refuses bad files or logs that they are left out, naming the first few.

    Args:
        bad: their names. total: how many there are with the good ones.
        what: what is wrong with them: "files that are empty".

    Raises:
        RobustokError: there are bad files and the policy is "refuse".
    """
    if not bad:
        return
    message = f"{len(bad)} of {total} {what}: {some_names(bad)}"
    if policy == "refuse":
        raise RobustokError(message, where=where, hint='remove them, or set on_bad_file = "skip"')
    _log.warning("%s: left out %s", where, message)


def checked(split: Labelled, pictures: StoredPictures, config: FilesConfig) -> Labelled:
    """The images that are used: all, or under "skip" those that can be decoded; with their content, under `verify`.

    Decoding or hashing all images takes about as long as an epoch of loading. That an image is good, and the hash of
    its content, are cached until its file changes; a broken one is looked at again each time.

    Args:
        split: of the images that `pictures` holds.

    Raises:
        RobustokError: under `verify`, a file cannot be read.
    """
    if config.verify:
        split = evolve(split, pictures=_WithContents(pictures, _contents(pictures, config.on_bad_file)))
    if config.on_bad_file == "refuse":
        return split
    broken = _broken(pictures)
    names = [f"{pictures.location(index)} ({reason})" for index, reason in sorted(broken.items())]
    refuse_or_log(names, len(pictures), config.on_bad_file, split.where, "files that are not readable images")
    rows = [index for index in range(len(pictures)) if index not in broken]
    return split[torch.tensor(rows, dtype=torch.int64)] if broken else split


class _WithContents(SomePictures):
    """All of other pictures, whose listing is a hash of their content."""

    def __init__(self, pictures: Pictures, contents: bytes) -> None:
        super().__init__(pictures, torch.arange(len(pictures)))
        self._contents = contents

    @property
    def listing(self) -> bytes:
        return hashlib.blake2b(super().listing + self._contents, digest_size=16).digest()


def _broken(pictures: StoredPictures) -> dict[int, str]:
    """Why images cannot be decoded, by index."""
    reasons: dict[int, str] = {}

    def is_good(index: int) -> bool | None:
        result = try_decode(pictures, index)
        if isinstance(result, str):
            reasons[index] = result
            return None  # not cached: a file may become readable without a change, or memory be free again
        return True

    _facts("good", pictures, is_good)
    return reasons


def _contents(pictures: StoredPictures, policy: Policy) -> bytes:
    """A hash of the content of all images."""
    digest = hashlib.blake2b(digest_size=16)

    def content(index: int) -> str | None:
        try:
            return hashlib.blake2b(pictures.read(index), digest_size=16).hexdigest()
        except (OSError, ValueError) as error:
            if policy == "skip":  # it is left out
                return None
            where = pictures.location(index)
            raise RobustokError(f"this image cannot be read: {why_unreadable(error)}", where=where) from error

    for fact in _facts("contents", pictures, content):
        digest.update((fact or "unreadable").encode())
    return digest.digest()


def _facts(what: str, pictures: StoredPictures, find_out: Callable[[int], Any]) -> list[Any]:
    """What is found out about each image, or was before."""
    place = hashlib.blake2b(os.fsencode(Path(pictures.place).absolute()), digest_size=16).hexdigest()

    def missing(indices: list[int]) -> list[Any]:
        found: list[Any] = []
        with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:  # Pillow releases the GIL while it decodes
            for start in range(0, len(indices), _AT_ONCE):
                found += pool.map(find_out, indices[start : start + _AT_ONCE])
        return found

    return remembered_each(f"{what}-{place}", pictures.versions(), missing)
