"""What happens to files that are no readable pictures: refused, or found beforehand and left out."""

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
_AT_ONCE = 4096  # pictures queued for the threads


@frozen(kw_only=True)
class FilesConfig(PictureConfig):
    """Pictures in files, some of which may be broken."""

    on_bad_file: Policy = field(
        default="refuse",
        metadata={
            "doc": "refuse: foreign and empty files stop at opening, a broken picture when it is read; "
            "skip: all pictures are decoded once beforehand (remembered), bad ones left out"
        },
    )


def judge(bad: Sequence[str], policy: Policy, where: str, what: str) -> None:
    """Refuses bad files, or logs that they are left out; names the first few.

    Raises:
        RobustokError: there are some and the policy is to refuse.
    """
    if not bad:
        return
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    message = f"{len(bad)} {what}: {', '.join(bad[:_NAMED])}{more}"
    if policy == "refuse":
        raise RobustokError(message, where=where, hint='remove them, or set on_bad_file = "skip"')
    _log.warning("%s: left out %s", where, message)


def without_broken(split: Labelled, policy: Policy) -> Labelled:
    """The pictures to keep: all, or under "skip" those that decode.

    Decoding everything takes about as long as an epoch of loading; the result is remembered for as
    long as `content_hash` stays the same.
    """
    if policy == "refuse":
        return split
    pictures = split.pictures
    broken = remembered(f"broken-{content_hash(pictures).hex()}", lambda: _broken(pictures))
    names = [f"{pictures.place(index)} ({reason})" for index, reason in broken]
    judge(names, policy, split.where, "files that are no readable pictures")
    left_out = {index for index, _ in broken}
    rows = [index for index in range(len(pictures)) if index not in left_out]
    return split[torch.tensor(rows, dtype=torch.int64)] if left_out else split


def _broken(pictures: Pictures) -> list[tuple[int, str]]:
    def reason(index: int) -> str | None:
        found = try_decode(pictures, index)
        return found if isinstance(found, str) else None

    found = []
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter lock
        for start in range(0, len(pictures), _AT_ONCE):
            part = range(start, min(start + _AT_ONCE, len(pictures)))
            found += [(index, text) for index, text in zip(part, pool.map(reason, part), strict=True) if text]
    return found
