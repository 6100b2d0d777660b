"""Tar shards in webdataset's layout (KEY.jpg, KEY.cls), with random access.

Shards are made for streaming, in an order that depends on the number of processes. Here each shard is indexed
once, and samples are read at their offsets, so that the order of the data is a function of (seed, epoch) as with
every other data set.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import logging
import math
import operator
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.dataset import Dataset
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.wording import short_text, some_names
from robustok_data.bad_files import checked, refuse_or_log
from robustok_data.cache import remembered
from robustok_data.file_ranges import FileRange, FileRangePictures
from robustok_data.pictures import FilesConfig, Policy
from robustok_data.places import local, place_field
from robustok_data.splits import Labelled, two_splits, validation_share_field

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})
_log = logging.getLogger(__name__)
_INDEX_VERSION = 4
_MOST_SHARDS = 1_000_000
_LONGEST_LABEL = 18  # digits, which fit into 64 bits


@frozen(kw_only=True)
class WebDatasetConfig(FilesConfig):
    """Options of `webdataset`."""

    train: str = place_field("local training shards: data/train-{000..146}.tar, or data/train-*.tar")
    validation: str | None = place_field(
        "local validation shards; left out: a share of the training images", default=None
    )
    validation_share: float = validation_share_field("if there are no validation shards")

    def __attrs_post_init__(self) -> None:
        refuse_ignored(self, "validation_share", unless=self.validation is None, needs="no validation")


class WebDataset(Dataset):
    """Samples with an image (jpg, jpeg, png, webp) and a class number from 0 (cls)."""

    Config = WebDatasetConfig
    also_called = ("tar", "wds")

    def __init__(self, config: WebDatasetConfig) -> None:
        self.image_size = config.image_size
        _check_apart(config)
        train = _labelled(config.train, "train", config)
        validation = None if config.validation is None else _labelled(config.validation, "validation", config)
        self.num_classes = _num_classes(train)
        self.class_names = tuple(str(label) for label in range(self.num_classes))
        self.train, self.validation = two_splits(train, validation, config.validation_share, self.class_names, config)


def _check_apart(config: WebDatasetConfig) -> None:
    """Raises RobustokError if a shard is in both splits: what is measured would be training images."""
    if config.validation is None:
        return
    patterns = {"train": config.train, "validation": config.validation}
    train, validation = ({os.path.realpath(shard) for shard in _shards(at, key)} for key, at in patterns.items())
    if both := sorted(train & validation):
        what = f"shards are in both splits: {some_names(both)}"
        raise RobustokError(what, where=config.validation, hint="name the shards of train so that it has none of them")


def _num_classes(train: Labelled) -> int:
    top = int(train.labels.max()) if len(train.labels) else 0
    if top >= max(1, len(train.labels)):
        raise RobustokError(f"the label {top} is too high for {len(train.labels)} training images", where=train.where)
    return top + 1


def _labelled(pattern: str, key: str, config: WebDatasetConfig) -> Labelled:
    file_ranges: list[FileRange] = []
    labels: list[int] = []
    incomplete: list[str] = []
    for shard in _shards(pattern, key):
        state = Path(shard).stat()
        index = _index(shard, state)
        _check_whole(shard, index, config.on_bad_file)
        for name, offset, size, label in index["samples"]:
            file_ranges.append(FileRange(shard, offset, size, name, state.st_mtime_ns))
            labels.append(label)
        incomplete += [f"{shard}, {name}" for name in index["incomplete"]]
        if nameless := index["nameless"]:
            names = some_names([short_text(name) for name in nameless])
            _log.warning("%s: %d files have no name or no ending and are passed over: %s", shard, len(nameless), names)
    what = "samples without exactly one image and one class number from 0"
    refuse_or_log(incomplete, len(labels) + len(incomplete), config.on_bad_file, pattern, what)
    pictures = FileRangePictures(file_ranges, pattern)
    split = Labelled(pictures=pictures, labels=torch.tensor(labels, dtype=torch.int64), where=pattern)
    return checked(split, pictures, config)


def _check_whole(shard: str, index: Any, policy: Policy) -> None:
    if index["damage"] is None:
        return
    what = f"this shard cannot be read ({index['damage']})"
    if policy == "refuse":
        raise RobustokError(what, where=shard, hint="shards must be whole, uncompressed tar files")
    _log.warning("%s: %s; its first %d samples are read, the rest is left out", shard, what, len(index["samples"]))


def _index(shard: str, state: os.stat_result) -> Any:
    """The shard's index, cached per file version.

    It is {"samples": [key, offset, size, label] each, "incomplete": keys, "nameless": files that belong to
    no sample, "damage": what is wrong after them or None}.
    """
    version = repr((_INDEX_VERSION, str(Path(shard).resolve()), state.st_size, state.st_mtime_ns))
    name = hashlib.blake2b(version.encode(), digest_size=16).hexdigest()
    return remembered(f"shard-{name}", lambda: _list(shard))


def _list(shard: str) -> dict[str, Any]:
    samples: list[tuple[str, int, int, int]] = []
    incomplete: list[str] = []
    nameless: list[str] = []
    damage = None
    try:
        with tarfile.open(shard, "r:") as tar:
            for key, members in _groups(tar):
                if key is None:
                    nameless += [member.name for _, member in members]
                    continue
                pictures = [member for extension, member in members if extension in EXTENSIONS]
                label = _label(tar, [member for extension, member in members if extension == "cls"])
                if len(pictures) == 1 and label is not None and not pictures[0].issparse():
                    samples.append((key, pictures[0].offset_data, pictures[0].size, label))
                else:
                    incomplete.append(key)
            damage = _end(tar)
    except OSError as error:
        raise RobustokError(f"this shard cannot be read ({error})", where=shard) from error
    except MemoryError as error:  # not the shard's fault, so that nothing is remembered of it
        raise RunError("there is not enough memory to list this shard", where=shard) from error
    except Exception as error:  # tarfile raises many types for damaged headers
        damage = str(error) or type(error).__name__
    return {"samples": samples, "incomplete": incomplete, "nameless": nameless, "damage": damage}


def _end(tar: tarfile.TarFile) -> str | None:
    """What is wrong with the end of an archive; tarfile takes a damaged header for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if block == tarfile.NUL * tarfile.BLOCKSIZE:
        return None
    return f"a damaged header at byte {tar.offset}" if block else f"it is cut after {tar.offset} bytes"


def _groups(tar: tarfile.TarFile) -> Iterator[tuple[str | None, list[tuple[str, tarfile.TarInfo]]]]:
    """Consecutive files with the same key, with their extensions; None is the key where either is missing."""
    split = _library().tariterators.base_plus_ext
    named = ((*split(member.name), member) for member in tar if member.isreg())
    for key, group in itertools.groupby(named, key=operator.itemgetter(0)):
        yield key, [((extension or "").lower(), member) for _, extension, member in group]


def _label(tar: tarfile.TarFile, members: Sequence[tarfile.TarInfo]) -> int | None:
    content = tar.extractfile(members[0]) if len(members) == 1 else None
    text = content.read(_LONGEST_LABEL + 20).strip() if content else b""
    return int(text) if text.isdigit() and len(text) <= _LONGEST_LABEL else None


def _shards(pattern: str, key: str) -> list[str]:
    """The files named by a pattern with {000..015}, {a,b} or *, all of which must exist."""
    if "://" in pattern or pattern.startswith("pipe:"):
        raise RobustokError("shards must be local files", where=pattern, hint="download them first")
    shards: list[str] = []
    for name in _expanded(str(local(pattern, key))):
        matching = [name] if Path(name).is_file() else sorted(glob.glob(name))  # noqa: PTH207 (an absolute pattern)
        if not matching:
            raise RobustokError("no such shard", where=name, hint=f"the pattern is {pattern!r}")
        if other := [shard for shard in matching if not Path(shard).is_file()]:  # a pipe would be waited for
            raise RobustokError("this shard is not a file", where=other[0], hint=f"the pattern is {pattern!r}")
        shards += matching
    return shards


def _expanded(pattern: str) -> list[str]:
    sizes = [abs(int(last[-18:]) - int(first[-18:])) + 1 for first, last in re.findall(r"\{(\d+)\.\.(\d+)", pattern)]
    if math.prod(sizes) > _MOST_SHARDS:
        raise RobustokError(f"a pattern cannot name more than {_MOST_SHARDS} shards", where=pattern)
    try:
        return list(_library().shardlists.expand_urls(pattern))
    except (ValueError, KeyError) as error:  # braces that do not match, an unknown variable
        raise RobustokError(f"this pattern cannot be read ({error})", where=pattern) from error


def _library() -> Any:
    try:
        import webdataset
    except ImportError as error:
        hint = "pip install 'robustok[webdataset]'"
        raise RobustokError("this data set needs the package `webdataset`", where="webdataset", hint=hint) from error
    return webdataset
