"""Which folders of an image folder are splits and which are classes, and what looks like a mistake about it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.values.wording import some_names
from robustok_toolkit.image_search import EXTENSIONS, files_in, folders_in

#: How folders are read: "auto" looks for train/ and val/; under "none", every folder is a class.
Splits = Literal["auto", "none"]

#: The only class of a folder without class folders.
FLAT_CLASS = "images"

_TRAINING = frozenset({"train", "training"})
_OTHERS = frozenset({"val", "valid", "validation", "test", "testing", "dev", "eval", "evaluation"})
_NO_SPLITS = 'or set splits = "none" if they are classes'
_log = logging.getLogger(__name__)


@frozen
class Layout:
    """Where the images of an image folder are.

    Attributes:
        train, validation: the folders of the splits; without a validation split, a share of the other is used.
        classes: the names of the class folders in `train`; None if the images lie in no class folders.
    """

    train: Path
    validation: Path | None
    classes: tuple[str, ...] | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return (FLAT_CLASS,) if self.classes is None else self.classes


def layout_of(root: Path, splits: Splits) -> Layout:
    """The splits and classes of a folder.

    A folder train/ that holds images but no folders is a class (railway trains), unless there is nothing but train/
    and val/.

    Raises:
        RobustokError: there are no images, or class names that are almost certainly those of splits.
    """
    folders = folders_in(root)
    layout = _with_splits(root, folders) if splits == "auto" else None
    if layout is None:
        layout = _without_splits(root, folders, splits)
    if layout.classes is None:
        _log.warning("%s: there are no class folders: all images are one class, %r", root, FLAT_CLASS)
    return layout


def _with_splits(root: Path, folders: Sequence[Path]) -> Layout | None:
    train, validation = root / "train", root / "val"
    with_classes = [folder for folder in (train, validation) if folder in folders and folders_in(folder)]
    if len(with_classes) == 1:
        missing = "val" if with_classes[0] == train else "train"
        known = _TRAINING if missing == "train" else _OTHERS
        similar = [folder.name for folder in folders if folder.name.lower() in known]
        change = f"rename {similar[0]}/ to {missing}/" if similar else f"add {missing}/CLASS/*"
        hint = f'{change}, or set path = "{with_classes[0]}" to use a share of it for validation'
        raise RobustokError(
            f"{with_classes[0].name}/ has class folders, {missing}/ has none", where=str(root), hint=hint
        )
    if with_classes:
        others = [f"{folder.name}/" for folder in folders if folder not in with_classes]
        if others:
            _log.warning("%s: beside train/ and val/, these are not read: %s", root, some_names(others))
        return Layout(train, validation, _names(folders_in(train)))
    if [folder.name for folder in folders] == ["train", "val"]:
        return Layout(train, validation, None)
    return None


def _without_splits(root: Path, folders: Sequence[Path], splits: Splits) -> Layout:
    loose = [name for name in files_in(root) if Path(name).suffix.lower() in EXTENSIONS]
    if not folders and not loose:
        hint = "an image's class is its folder's name: PATH/CLASS/image.png"
        raise RobustokError("no class folders found", where=str(root), hint=hint)
    if not folders:
        return Layout(root, None, None)
    if splits == "auto" and look_like_splits(folder.name for folder in folders):
        if all(folder.name.lower() in _TRAINING | _OTHERS for folder in folders):
            hint = f"rename them to train and val, {_NO_SPLITS}"
            raise RobustokError(f"these class names look like splits: {_listed(folders)}", where=str(root), hint=hint)
        _log.warning("%s: some of these class names look like splits: %s", root, _listed(folders))
    return Layout(root, None, _names(folders))


def look_like_splits(names: Iterable[str]) -> bool:
    """Whether there is a name for training data and one for other data among these."""
    lower = {name.lower() for name in names}
    return bool(lower & _TRAINING and lower & _OTHERS)


def check_depth(folder: Path, inside: Sequence[str], splits: Splits, num_classes: int) -> None:
    """Checks that a class folder is not a whole data set, as it is when `path` is one level too high.

    Args:
        folder: of a class. inside: the names of its images, relative to it. num_classes: how many classes there are.

    Raises:
        RobustokError: the folders in it look like splits.
    """
    names = sorted({name.split("/", 1)[0] for name in inside if "/" in name})
    if splits == "auto" and look_like_splits(names):
        what = f"the class {folder.name!r} holds folders that look like splits: {some_names(names)}"
        raise RobustokError(what, where=str(folder), hint=f'set path = "{folder}", {_NO_SPLITS}')
    if num_classes == 1 and len(names) > 1 and not any("/" not in name for name in inside):
        what = "%s: the only class, %r, holds no images but folders (%s); if these are the classes, set path = %s"
        _log.warning(what, folder.parent, folder.name, some_names(names), folder)


def say_loose(folder: Path) -> None:
    """Logs how many images lie beside the class folders, where they are not read."""
    loose = [name for name in files_in(folder) if Path(name).suffix.lower() in EXTENSIONS]
    if loose:
        _log.warning("%s: %d images beside the class folders are not read: %s", folder, len(loose), some_names(loose))


def _names(folders: Iterable[Path]) -> tuple[str, ...]:
    return tuple(folder.name for folder in folders)


def _listed(folders: Sequence[Path]) -> str:
    return some_names(_names(folders), most=5)
