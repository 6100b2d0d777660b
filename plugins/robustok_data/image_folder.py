"""A folder with one folder per class, as for ImageNet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset
from robustok_data.bad_files import FilesConfig, refuse_or_log, without_broken
from robustok_data.file_ranges import FileRange, FileRangePictures
from robustok_data.splits import Labelled, two_splits, validation_share_field

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})


@frozen(kw_only=True)
class ImageFolderConfig(FilesConfig):
    """Options of `image_folder`."""

    path: str = field(metadata={"doc": "folder with train/CLASS/* and val/CLASS/*, or with only CLASS/*"})
    validation_share: float = validation_share_field("if there is no train/ and val/ (fixed by file names)")


class ImageFolder(Dataset):
    """Classes are the folders' names in alphabetical order; folders inside a class folder are read too.

    Hidden files (.DS_Store) are ignored. EXIF rotation is not applied, as in ADM.
    """

    Config = ImageFolderConfig

    def __init__(self, config: ImageFolderConfig) -> None:
        root = Path(config.path).expanduser()
        if not root.is_dir():
            raise RobustokError("no such folder", where=str(root), hint="check the key `path`")
        train, validation = _split_folders(root)
        self.image_size = config.image_size
        self.class_names = tuple(folder.name for folder in _class_folders(train))
        self.num_classes = len(self.class_names)
        self.train, self.validation = two_splits(
            _split(train, self.class_names, config),
            None if validation is None else _split(validation, self.class_names, config),
            config.validation_share,
            self.class_names,
            config,
        )


def _split_folders(root: Path) -> tuple[Path, Path | None]:
    """The folders of the training and the validation split; only the first without train/ and val/.

    A folder train/ that holds images but no folders is a class (railway trains).
    """
    split = [root / "train", root / "val"]
    with_classes = [folder for folder in split if folder.is_dir() and _class_folders(folder)]
    if len(with_classes) == 1:
        missing = "val" if with_classes[0].name == "train" else "train"
        hint = f'add {missing}/CLASS/*, or set path = "{with_classes[0]}" to use a share of it for validation'
        raise RobustokError(
            f"{with_classes[0].name}/ has class folders, {missing}/ has none", where=str(root), hint=hint
        )
    if with_classes:
        return split[0], split[1]
    if not _class_folders(root):
        hint = "an image's class is its folder's name: PATH/CLASS/image.png"
        raise RobustokError("no class folders found", where=str(root), hint=hint)
    return root, None


def _class_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _split(folder: Path, class_names: Sequence[str], config: ImageFolderConfig) -> Labelled:
    """The images of a split, by class and name, without bad files."""
    unknown = [other.name for other in _class_folders(folder) if other.name not in class_names]
    if unknown:
        raise RobustokError(f"the training split has no class {unknown[0]!r}", where=str(folder))
    file_ranges: list[FileRange] = []
    labels: list[int] = []
    foreign: list[str] = []
    for label, class_name in enumerate(class_names):
        for file in _files(folder / class_name):
            name = os.path.relpath(file, folder)
            size = _size(file)
            if size == 0 or Path(file).suffix.lower() not in EXTENSIONS:
                foreign.append(name)
                continue
            file_ranges.append(FileRange(file, 0, size, name))
            labels.append(label)
    refuse_or_log(foreign, config.on_bad_file, str(folder), "files that are empty, missing or not images")
    split = Labelled(
        pictures=FileRangePictures(file_ranges),
        labels=torch.tensor(labels, dtype=torch.int64),
        where=str(folder),
        keys=torch.tensor([_key(piece.name) for piece in file_ranges], dtype=torch.int64),
    )
    return without_broken(split, config.on_bad_file)


def _files(folder: Path) -> list[str]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [os.path.join(parent, name) for name in names if not name.startswith(".")]  # noqa: PTH118 (millions)
    return sorted(files)


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 (millions)
    except OSError:  # a broken link
        return 0


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big") >> 1
