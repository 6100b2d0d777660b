"""The files and folders of the user that options of a recipe name. What they hold is part of fingerprints."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from robustok_core.runs.fingerprints import sha256_of
from robustok_core.runs.shard_index import files_of
from robustok_core.values.spec import Spec, neutral_options, specs_in

#: Of a folder with more files, this many have their bytes hashed, as those of a data set.
_SAMPLED = 1024


@frozen
class NamedFile:
    """A file or folder as it is now.

    Attributes:
        content: a hash: of a file's bytes; of a folder's names, sizes, and the bytes of up to 1,024 files.
        changed: when it, or a file in the folder, was written last; in seconds since 1970.
    """

    content: str
    changed: float


def paths_in(specs: Iterable[Spec]) -> list[Path]:
    """The files and folders that options of these components name, and those that they build in turn; each once."""
    return list(dict.fromkeys(path for spec in _shaping(specs) for path in spec.factory.files(spec.config)))


def _shaping(specs: Iterable[Spec]) -> Iterator[Spec]:
    """Components, and those in their options that affect their result."""
    for spec in specs:
        yield spec
        neutral = neutral_options(spec.config)
        yield from _shaping(part for keys, part in specs_in(spec.config) if keys[0] not in neutral)


def look_at(path: Path) -> NamedFile | None:
    """A file, with those that it names if it is an index of weights, or a folder; None if it is not there.

    Raises:
        RobustokError: if an index is damaged, or a file that it names is missing.
        OSError: if it may not be read.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return None
    files = [_file(file) for file in files_of(path)]
    return NamedFile("+".join(file.content for file in files), max(file.changed for file in files))


def _file(file: Path) -> NamedFile:
    state = file.stat()
    return NamedFile(_hash(file, state.st_size, state.st_mtime_ns), state.st_mtime)


@functools.lru_cache(maxsize=4096)
def _hash(file: Path, size: int, changed: int) -> str:  # noqa: ARG001 (of the cache's key)
    """The hash of a file of this size and time; a program that looks at many recipes reads it once."""
    return sha256_of(file, size)[:32]


def _folder(path: Path) -> NamedFile:
    files = sorted(
        file for folder, _, names in os.walk(path) for name in names if (file := Path(folder, name)).is_file()
    )
    states = [file.stat() for file in files]
    digest = hashlib.sha256()
    for file, state in zip(files, states, strict=True):
        digest.update(f"{os.fsencode(file.relative_to(path))!r} {state.st_size}\n".encode())
    count = min(len(files), _SAMPLED)
    for number in range(count):
        digest.update(sha256_of(files[number * len(files) // count]).encode())
    return NamedFile(digest.hexdigest()[:32], max((state.st_mtime for state in states), default=0.0))


def recorded_content(record: Mapping[str, Any], stage: str, path: Path) -> str:
    """What the stage in the folder's recipe was made from, for a file that is not there any more; else "absent"."""
    entry = record["stages"].get(f"{stage}-{record.get('current', {}).get(stage)}", {})
    content = ((entry.get("made_from") or {}).get("files") or {}).get(str(path), "absent")
    return str(content)


def may_be_made_from(entry: Mapping[str, Any], files: Mapping[str, str], changed: float) -> bool:
    """Whether a stage, whose fingerprint does not cover what files hold, read them as they are now.

    Earlier versions recorded no content of files: then, files that were not written since the stage started.

    Args:
        entry: of the stage in run.json. files: what they hold now, by path. changed: when one was written last.
    """
    recorded = (entry.get("made_from") or {}).get("files")
    if recorded is not None or not files:
        return bool((recorded or {}) == files)
    started = entry.get("started")
    return started is not None and changed < datetime.fromisoformat(started).timestamp()
