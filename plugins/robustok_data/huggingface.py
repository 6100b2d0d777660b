"""Data sets on the Hugging Face hub, or local folders in its formats."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from robustok_core.errors import RobustokError, did_you_mean
from robustok_core.kinds.dataset import Dataset
from robustok_core.values.download import Download
from robustok_data.arrays import as_labels
from robustok_data.bad_files import FilesConfig, without_broken
from robustok_data.pictures import Pictures
from robustok_data.splits import Labelled, two_splits, validation_share_field
from robustok_toolkit.downloads import hub_dataset

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@frozen(kw_only=True)
class HuggingFaceConfig(FilesConfig):
    """Options of `huggingface`."""

    path: str = field(
        metadata={
            "doc": "a name on the hub (OWNER/NAME), a folder written by save_to_disk, or one of parquet or image files"
        }
    )
    name: str | None = field(default=None, metadata={"doc": "configuration of the data set, if it has several"})
    revision: str | None = field(default=None, metadata={"doc": "commit or tag on the hub; set it for reproducibility"})
    train_split: str = field(default="train", metadata={"doc": "training split"})
    validation_split: str | None = field(
        default=None, metadata={"doc": "validation split; left out: a share of the training split"}
    )
    validation_share: float = validation_share_field("if validation_split is left out")
    image_column: str = field(default="image", metadata={"doc": "column with the images"})
    label_column: str = field(default="label", metadata={"doc": "column with the classes: integers from 0, or names"})


class HuggingFace(Dataset):
    """Images and labels of a data set in the format of the `datasets` library."""

    Config = HuggingFaceConfig

    @classmethod
    def downloads(cls, config: HuggingFaceConfig) -> Iterable[Download]:
        _library()
        return [hub_dataset(config.path, config.name, config.revision)] if _on_hub(config) else ()

    def __init__(self, config: HuggingFaceConfig) -> None:
        splits = _open(config)
        self.image_size = config.image_size
        self.class_names = _class_names(_rows(splits, config.train_split, config), config)
        self.num_classes = len(self.class_names)
        train = _labelled(splits, config.train_split, self.class_names, config)
        validation = None
        if config.validation_split is not None:
            validation = _labelled(splits, config.validation_split, self.class_names, config)
        self.train, self.validation = two_splits(train, validation, config.validation_share, self.class_names, config)


def _on_hub(config: HuggingFaceConfig) -> bool:
    return not Path(config.path).expanduser().exists() and _NAME.fullmatch(config.path) is not None


class _HubPictures(Pictures):
    """One column of a `datasets.Dataset`, not decoded."""

    def __init__(self, column: Any, where: str) -> None:
        self._column = column
        self._where = where

    def __len__(self) -> int:
        return len(self._column)

    def read(self, index: int) -> bytes:
        (stored,) = self._column[index].values()
        if stored is None:
            raise ValueError("this row has no image")
        return Path(stored["path"]).read_bytes() if stored["bytes"] is None else bytes(stored["bytes"])

    def location(self, index: int) -> str:
        return f"{self._where}, row {index}"

    @property
    def listing(self) -> bytes:
        return hashlib.blake2b(repr((len(self), self._column.column_names)).encode(), digest_size=16).digest()


def _open(config: HuggingFaceConfig) -> Any:
    """A `datasets.DatasetDict` from the hub, from its cache, or from a folder."""
    datasets = _library()
    folder = Path(config.path).expanduser()
    on_disk = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        if on_disk:
            opened = datasets.load_from_disk(str(folder))
        else:
            for download in HuggingFace.downloads(config):
                download.require(config.path)
            path = str(folder) if folder.exists() else config.path
            opened = datasets.load_dataset(path, config.name, revision=config.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RobustokError(_first_line(error), where=config.path, hint=_hint(error)) from error
    return opened if isinstance(opened, dict) else {str(opened.split or "train"): opened}


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        hint = "pip install 'robustok[huggingface]'"
        raise RobustokError("this data set needs the package `datasets`", where="huggingface", hint=hint) from error
    return datasets


def _first_line(error: Exception) -> str:
    return f"the data set cannot be opened ({next(iter(str(error).splitlines()), type(error).__name__)})"


def _hint(error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return "the hub cannot be reached: go online once to cache a copy, or give a local folder"
    return "give a name on the hub or a local folder"


def _rows(splits: Any, name: str, config: HuggingFaceConfig) -> Any:
    if name not in splits:
        raise RobustokError(f"no split {name!r}", where=config.path, hint=did_you_mean(name, list(splits)))
    rows = splits[name]
    for column in (config.image_column, config.label_column):
        if column not in rows.column_names:
            hint = did_you_mean(column, rows.column_names)
            raise RobustokError(f"split {name!r} has no column {column!r}", where=config.path, hint=hint)
    return rows


def _labels(rows: Any, config: HuggingFaceConfig) -> NDArray[Any]:
    """(n,) integers or names."""
    labels = np.asarray(rows.with_format("numpy")[config.label_column][:])
    if labels.ndim != 1 or labels.dtype.kind not in "iuUO":
        what = f"column {config.label_column!r} holds {rows.features[config.label_column]}, not integers or names"
        raise RobustokError(what, where=config.path)
    return labels


def _class_names(rows: Any, config: HuggingFaceConfig) -> tuple[str, ...]:
    """The declared class names, or those that occur in the training split."""
    declared = getattr(rows.features[config.label_column], "names", None)
    if declared:
        return tuple(declared)
    labels = _labels(rows, config)
    if np.issubdtype(labels.dtype, np.integer):
        top = int(labels.max()) if len(labels) else 0
        if top >= max(1, len(labels)):
            raise RobustokError(f"the label {top} is too high for {len(labels)} training images", where=config.path)
        return tuple(str(label) for label in range(top + 1))
    return tuple(sorted({str(label) for label in labels}))


def _labelled(splits: Any, split: str, class_names: Sequence[str], config: HuggingFaceConfig) -> Labelled:
    rows = _rows(splits, split, config)
    where = f"{config.path}, {split}"
    labels = _labels(rows, config)
    if not np.issubdtype(labels.dtype, np.integer):
        labels = _numbers(labels, class_names, where)
    pictures = rows.select_columns([config.image_column])
    try:
        undecoded = pictures.cast_column(config.image_column, _library().Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        hint = f"the column is {rows.features[config.image_column]}"
        raise RobustokError(f"column {config.image_column!r} does not hold images", where=where, hint=hint) from error
    split_pictures = Labelled(
        pictures=_HubPictures(undecoded, where), labels=as_labels(labels, len(rows), where), where=where
    )
    return without_broken(split_pictures, config.on_bad_file)


def _numbers(labels: NDArray[Any], class_names: Sequence[str], where: str) -> NDArray[np.int64]:
    number = {name: label for label, name in enumerate(class_names)}
    unknown = next((str(label) for label in labels if str(label) not in number), None)
    if unknown is not None:
        raise RobustokError(f"the training split has no class {unknown!r}", where=where)
    return np.array([number[str(label)] for label in labels], dtype=np.int64)
