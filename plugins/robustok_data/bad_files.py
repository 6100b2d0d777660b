"""Files that are not readable images: refused, or found beforehand and left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_data.cache import remembered
from robustok_data.pictures import PictureConfig, Pictures, content_hash, try_decode
from robustok_data.splits import Labelled

Policy = Literal["refuse", "skip"]

_log = logging.getLogger(__name__)
_NAMED = 3
_AT_ONCE = 4096  # images queued for the threads


@frozen(kw_only=True)
class FilesConfig(PictureConfig):
    """Options of data sets that read image files, some of which may be broken."""

    on_bad_file: Policy = field(
        default="refuse",
        metadata={
            "doc": "refuse: foreign and empty files are an error on opening, a broken image when it is read; "
            "skip: decode all images once beforehand (cached) and leave bad files out"
        },
    )


def refuse_or_log(bad: Sequence[str], policy: Policy, where: str, what: str) -> None:
    """Refuses bad files or logs that they are left out, naming the first few.

    Raises:
        RobustokError: there are bad files and the policy is "refuse".
    """
    if not bad:
        return
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    message = f"{len(bad)} {what}: {', '.join(bad[:_NAMED])}{more}"
    if policy == "refuse":
        raise RobustokError(message, where=where, hint='remove them, or set on_bad_file = "skip"')
    _log.warning("%s: left out %s", where, message)


def without_broken(split: Labelled, policy: Policy) -> Labelled:
    """The images that are used: all, or under "skip" those that can be decoded.

    Decoding all images takes about as long as an epoch of loading; the result is cached while `content_hash` is
    unchanged.
    """
    if policy == "refuse":
        return split
    pictures = split.pictures
    broken = remembered(f"broken-{content_hash(pictures).hex()}", lambda: _broken(pictures))
    names = [f"{pictures.location(index)} ({reason})" for index, reason in broken]
    refuse_or_log(names, policy, split.where, "files that are not readable images")
    left_out = {index for index, _ in broken}
    rows = [index for index in range(len(pictures)) if index not in left_out]
    return split[torch.tensor(rows, dtype=torch.int64)] if left_out else split


def _broken(pictures: Pictures) -> list[tuple[int, str]]:
    def reason(index: int) -> str | None:
        result = try_decode(pictures, index)
        return result if isinstance(result, str) else None

    broken = []
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:  # Pillow releases the GIL while it decodes
        for start in range(0, len(pictures), _AT_ONCE):
            indices = range(start, min(start + _AT_ONCE, len(pictures)))
            broken += [(index, text) for index, text in zip(indices, pool.map(reason, indices), strict=True) if text]
    return broken
