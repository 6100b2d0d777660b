"""Makes a folder of prepared images, shard by shard, so that a killed command goes on where it was."""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import attrs
import numpy as np
import torch
from attrs import define, frozen
from filelock import Timeout
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from robustok_core.errors import Interrupted, RobustokError, RunError
from robustok_core.kinds.dataset import Dataset, Images
from robustok_core.runs.files import remove_leftovers, write_json, writing
from robustok_core.runs.locks import NOT_KEPT_APART, lock_of
from robustok_core.runs.manifest import MANIFEST, Manifest, write_manifest
from robustok_core.runs.records import read_record
from robustok_core.runs.run_record import FileRecord
from robustok_core.values.download import size_text
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.images import from_uint8, to_uint8
from robustok_toolkit.prepared_files import (
    DESCRIPTION,
    Format,
    Prepared,
    PreparedSplit,
    checksum,
    decoded,
    index_file,
    read_prepared,
    write_prepared_manifest,
)
from robustok_toolkit.prepared_shards import new_shard, tar_bytes
from robustok_toolkit.resumable_shards import Shard, is_damaged, write_array
from robustok_training.progress import StepProgress

SPLITS = ("train", "validation")
_log = logging.getLogger(__name__)
_LOCK = ".lock"
_AT_ONCE = 32  # images that a thread loads
_TRIED = 32  # images whose augmentation, and size in WebP, is tried
_INDEX_BYTES = 4 * 8 + 1  # for each image, with a share of the index's header


@frozen
class Piece:
    """One image as it is stored, and the checksum of its pixels."""

    content: bytes
    checksum: int


def describe(dataset: Dataset, source: str, image_format: Format, shard_bytes: int) -> Prepared:
    """What will be prepared of a data set.

    Args:
        source: the name of the data set. shard_bytes: the size of a shard before compression.
    """
    size = dataset.image_size
    train, validation = (
        PreparedSplit(num_images=len(images), source=images.fingerprint)
        for images in (dataset.train, dataset.validation)
    )
    return Prepared(
        image_size=size,
        format=image_format,
        shard_images=max(1, shard_bytes // (size * size * 3)),
        class_names=tuple(dataset.class_names),
        source=source,
        train=train,
        validation=validation,
    )


def only_mirrors(images: Images) -> bool:
    """Whether training mirrors some of the images; some are loaded as for training to find out.

    Raises:
        RobustokError: it changes them otherwise, which stored images cannot be.
    """
    rows = _spread(len(images))
    plain = images.load(rows).images
    mirrors = False
    for epoch in range(4):
        drawn = images.load(rows, Draws.for_rows(derive_seed("prepare", epoch), len(rows))).images
        same, mirrored = (drawn == plain).flatten(1).all(1), (drawn == plain.flip(3)).flatten(1).all(1)
        if not bool((same | mirrored).all()):
            what = "training changes these images by more than mirroring them, as random crops do"
            hint = "only centre crops can be stored: set data.crop=center, or train from the images as they are"
            raise RobustokError(what, where="data", hint=hint)
        mirrors = mirrors or not bool(same.all())
    return mirrors


@define
class Preparation:
    """The work on one folder.

    Attributes:
        dataset: the images. prepared: what is made of them. folder: where.
        say: prints a line. console: for the progress. threads: how many decode images.
    """

    dataset: Dataset
    prepared: Prepared
    folder: Path
    say: Callable[[str], None]
    console: Console | None
    threads: int

    def run(self) -> None:
        """Makes the shards that are missing or damaged, and then the manifest.

        Raises:
            RobustokError: the folder holds something else, another command uses it, or there is not enough room.
            RunError: an image cannot be read, or a file cannot be written.
            Interrupted: by Ctrl-C; the finished shards are kept.
        """
        with self._taken():
            missing = [
                (split, shard) for split in SPLITS for shard in self.prepared.shards(split) if self._lacks(shard)
            ]
            self._check_room([shard for _, shard in missing])
            write_json(self.folder / DESCRIPTION, attrs.asdict(self.prepared))
            try:
                self._make(missing)
            except KeyboardInterrupt as error:
                hint = "run the same command to go on"
                raise Interrupted("stopped; the finished shards are kept", hint=hint) from error
            self._finish()

    @contextmanager
    def _taken(self) -> Iterator[None]:
        """Holds the folder, which is new, or was begun with the same images and options."""
        self._check_same()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = lock_of(self.folder / _LOCK)
        try:
            if lock is None:
                self.say(f"note: {self.folder}: {NOT_KEPT_APART}")
            else:
                with writing(self.folder):
                    lock.acquire(blocking=False)
        except Timeout as error:
            hint = "wait for it, or choose another OUT"
            raise RobustokError("another command is using this folder", where=str(self.folder), hint=hint) from error
        try:
            remove_leftovers(self.folder)
            yield
        finally:
            if lock is not None:
                lock.release()

    def _check_same(self) -> None:
        if not self.folder.exists():
            return
        before = self._before()
        if before is None:
            return
        for name, value in attrs.asdict(self.prepared, recurse=False).items():
            if (then := getattr(before, name)) != value:
                what = f"this folder holds images that were prepared otherwise: {_change(name, then, value)}"
                hint = "choose another OUT, or give the same DATA and options"
                raise RobustokError(what, where=str(self.folder), hint=hint)

    def _before(self) -> Prepared | None:
        """What the folder was begun with; None if it is empty. Of its two descriptions, one may be damaged."""
        if not self.folder.is_dir() or not any((self.folder / name).is_file() for name in (DESCRIPTION, MANIFEST)):
            if self.folder.is_dir() and all(file.name.startswith(".") for file in self.folder.iterdir()):
                return None
            what = "this already exists, and holds no prepared images"
            raise RobustokError(what, where=str(self.folder), hint="nothing is overwritten: choose a new name")
        try:
            return read_record(Prepared, self.folder / DESCRIPTION)
        except RobustokError:
            if not (self.folder / MANIFEST).is_file():
                raise
            return read_prepared(self.folder).prepared

    def _lacks(self, shard: Shard) -> bool:
        manifest = self._manifest(shard)
        return not os.path.lexists(manifest) or is_damaged(self._files(shard), manifest, _warn)

    def _files(self, shard: Shard) -> list[Path]:
        return [self.prepared.images_file(self.folder, shard), index_file(self.folder, shard)]

    def _manifest(self, shard: Shard) -> Path:
        return self.folder / f"{shard.stem}.manifest.json"

    def _check_room(self, missing: Sequence[Shard]) -> None:
        """Says how much is to be written, and refuses what does not fit."""
        counts = [f"{getattr(self.prepared, split).num_images:,} {split}" for split in SPLITS]
        size = self.prepared.image_size
        self.say(f"{' and '.join(counts)} images of {size} x {size} pixels, {len(self.prepared.class_names):,} classes")
        if not missing:
            return
        with writing(self.folder):
            free = shutil.disk_usage(self.folder).free
        needed = int(sum(map(len, missing)) * (self._stored_bytes() + _INDEX_BYTES))
        about = "about " if self.prepared.format == "webp" else ""
        count = sum(len(self.prepared.shards(split)) for split in SPLITS)
        kept = f" ({count - len(missing)} of {count} are there already)" if len(missing) < count else ""
        self.say(f"{about}{size_text(needed)} in {len(missing)} shards{kept}; {size_text(free)} are free")
        if needed > free:
            what = f"there is not enough room: {about}{size_text(needed)} are needed, {size_text(free)} are free"
            hint = "free some space, or choose another OUT" + (", or --format webp" if not about else "")
            raise RunError(what, where=str(self.folder), hint=hint)

    def _stored_bytes(self) -> float:
        """The bytes of an image: exactly, or the mean of some as WebP."""
        if self.prepared.format == "npy":
            return self.prepared.image_bytes
        pieces = self._pieces(self.dataset.train, _spread(len(self.dataset.train)))
        return sum(tar_bytes(piece.content) for piece in pieces) / len(pieces)

    def _make(self, missing: Sequence[tuple[str, Shard]]) -> None:
        total = self.prepared.train.num_images + self.prepared.validation.num_images
        done = total - sum(len(shard) for _, shard in missing)
        pool = ThreadPoolExecutor(self.threads)  # Pillow and torch release the GIL
        try:
            with StepProgress(self.console, "prepare", total, done) as progress:
                for split, shard in missing:
                    images: Images = getattr(self.dataset, split)
                    starts = range(shard.first, shard.stop, _AT_ONCE)
                    chunks = [range(start, min(start + _AT_ONCE, shard.stop)) for start in starts]
                    made = pool.map(partial(self._pieces, images), chunks)
                    self._write(shard, images.labels, chain.from_iterable(made))
                    done += len(shard)
                    progress.update(done, {"images": done})
        finally:
            pool.shutdown(cancel_futures=True)

    def _pieces(self, images: Images, rows: Sequence[int]) -> list[Piece]:
        """The images at `rows` as they are stored; it is made sure that they are read back as they are."""
        loaded = images.load(rows).images
        pixels = to_uint8(loaded)
        if not torch.equal(from_uint8(pixels), loaded):
            what = "the images of this data set are not of 8 bits, and would be changed by storing them"
            raise RobustokError(what, where="data")
        return [self._piece(image) for image in pixels.permute(0, 2, 3, 1).contiguous().numpy()]

    def _piece(self, pixels: NDArray[np.uint8]) -> Piece:
        if self.prepared.format == "npy":
            return Piece(pixels.tobytes(), checksum(pixels))
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "WEBP", lossless=True, quality=50, method=3)
        if not np.array_equal(decoded(encoded.getvalue(), self.prepared), pixels):
            raise RunError("Pillow's WebP changes these pixels", where="--format webp", hint="choose --format npy")
        return Piece(encoded.getvalue(), checksum(pixels))

    def _write(self, shard: Shard, labels: torch.Tensor, pieces: Iterable[Piece]) -> None:
        """Writes a shard's images, its index and its manifest, with which it is complete."""
        images, index = self._files(shard)
        rows = []
        with new_shard(images, shard, self.prepared) as add:
            for number, piece in enumerate(pieces, start=shard.first):
                label = int(labels[number])
                rows.append((label, add(piece.content, number, label), len(piece.content), piece.checksum))
        write_array(index, np.array(rows, dtype=np.int64))
        write_manifest(self._manifest(shard), [images, index])

    def _finish(self) -> None:
        files: dict[str, FileRecord] = {}
        for split in SPLITS:
            for shard in self.prepared.shards(split):
                files |= read_record(Manifest, self._manifest(shard)).files
        write_prepared_manifest(self.folder, self.prepared, files)


def _spread(count: int) -> list[int]:
    """Up to 32 of `count` indices, evenly spread."""
    some = min(count, _TRIED)
    return [number * count // some for number in range(some)]


def _warn(line: str) -> None:
    _log.warning("%s", line)  # also where nothing else is printed


def _change(name: str, before: object, now: object) -> str:
    if not (isinstance(before, PreparedSplit) and isinstance(now, PreparedSplit)):
        return f"{name} was {_brief(before)} and is {_brief(now)}"
    if before.num_images != now.num_images:
        return f"there were {before.num_images} {name} images and are {now.num_images}"
    return f"the {name} images were others, or read with other options of [data]"


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
