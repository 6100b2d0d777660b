"""A folder with one folder per class, as for ImageNet."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from pathlib import Path

import torch
from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset
from robustok_data.bad_files import checked, refuse_or_log
from robustok_data.file_ranges import FileRange, FileRangePictures
from robustok_data.folder_layout import Layout, Splits, check_depth, layout_of, say_loose
from robustok_data.pictures import FilesConfig
from robustok_data.places import local, place_field
from robustok_data.splits import Labelled, two_splits, validation_share_field, warn_of_share
from robustok_toolkit.image_search import HARMLESS, HIDDEN, counted, folders_in, search

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class ImageFolderConfig(FilesConfig):
    """Options of `image_folder`."""

    path: str = place_field("folder with train/CLASS/* and val/CLASS/*, or with only CLASS/*, or with only images")
    splits: Splits = field(
        default="auto",
        metadata={"doc": "auto: train/ and val/ are splits; none: every folder is a class, whatever its name"},
    )
    validation_share: float = validation_share_field("if there is no train/ and val/ (fixed by file names)")


class ImageFolder(Dataset):
    """Classes are the folders' names in alphabetical order; folders inside a class folder are read too.

    Images that lie in no class folder are one class. Links to folders are followed. Hidden files (.DS_Store) are
    ignored.
    """

    Config = ImageFolderConfig
    also_called = ("folder", "imagefolder", "imagenet")

    def __init__(self, config: ImageFolderConfig) -> None:
        root = local(config.path)
        if not root.is_dir():
            start = "" if root.is_absolute() else f"; it starts in {Path.cwd()}"
            raise RobustokError("no such folder", where=str(root), hint=f"check the key `path`{start}")
        layout = layout_of(root, config.splits)
        if layout.validation is not None:
            warn_of_share(config, str(root))
        self.image_size = config.image_size
        self.class_names = layout.class_names
        self.num_classes = len(self.class_names)
        self.train, self.validation = two_splits(
            _split(layout.train, layout, config),
            None if layout.validation is None else _split(layout.validation, layout, config),
            config.validation_share,
            self.class_names,
            config,
        )


def _split(folder: Path, layout: Layout, config: ImageFolderConfig) -> Labelled:
    """The images of a split, by class and name, without bad files."""
    if layout.classes is not None:
        unknown = [other.name for other in folders_in(folder) if other.name not in layout.classes]
        if unknown:
            raise RobustokError(f"the training split has no class {unknown[0]!r}", where=str(folder))
        say_loose(folder)
    file_ranges: list[FileRange] = []
    labels: list[int] = []
    passed_over: list[tuple[str, str]] = []
    for label, name in enumerate(layout.class_names):
        class_folder, above = (folder, "") if layout.classes is None else (folder / name, f"{name}/")
        if not class_folder.is_dir():
            continue  # a class without validation images
        found = search(class_folder)
        images = sorted(found.images, key=lambda image: image.name)
        check_depth(class_folder, [image.name for image in images], config.splits, len(layout.class_names))
        passed_over += [(above + inside, reason) for inside, reason in found.passed_over]
        file_ranges += [FileRange(image.path, 0, image.size, above + image.name, image.mtime_ns) for image in images]
        labels += [label] * len(images)
    _report(passed_over, len(file_ranges), folder, config)
    pictures = FileRangePictures(file_ranges, str(folder))
    split = Labelled(
        pictures=pictures,
        labels=torch.tensor(labels, dtype=torch.int64),
        where=str(folder),
        keys=torch.tensor([_key(piece.name) for piece in file_ranges], dtype=torch.int64),
    )
    return checked(split, pictures, config)


def _report(passed_over: list[tuple[str, str]], num_images: int, folder: Path, config: ImageFolderConfig) -> None:
    """Refuses or logs the files that are not read."""
    bad = sorted((name, reason) for name, reason in passed_over if reason not in HARMLESS)
    kinds = counted(Counter(reason for _, reason in bad))
    what = f"files that are not images ({kinds})"
    refuse_or_log([name for name, _ in bad], num_images + len(bad), config.on_bad_file, str(folder), what)
    harmless = Counter(reason for _, reason in passed_over if reason in HARMLESS - {HIDDEN})
    if harmless:
        _log.warning("%s: passed over: %s", folder, counted(harmless))


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big") >> 1
