"""Data sets on the Hugging Face hub, or local folders in its formats."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray

from robustok_core.errors import RobustokError, did_you_mean
from robustok_core.kinds.dataset import Dataset
from robustok_core.values.download import Download
from robustok_core.values.ignored import changed_options, refuse_ignored, refused_options
from robustok_core.values.wording import reason_of
from robustok_data.arrays import as_labels
from robustok_data.bad_files import checked, refuse_or_log
from robustok_data.pictures import FilesConfig, Policy, StoredPictures
from robustok_data.places import local, place_field
from robustok_data.splits import Labelled, two_splits, validation_share_field
from robustok_toolkit.downloads import hub_dataset, open_dataset

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

_ROWS_AT_ONCE = 1000
_NO_LABEL = -1

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class HuggingFaceConfig(FilesConfig):
    """Options of `huggingface`."""

    path: str = place_field(
        "a name on the hub (OWNER/NAME), a folder written by save_to_disk, or one of parquet or image files"
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

    def __attrs_post_init__(self) -> None:
        refuse_ignored(self, "validation_share", unless=self.validation_split is None, needs="no validation_split")
        if self.validation_split == self.train_split and refused_options(self, "validation_split"):
            raise ValueError(
                f"validation_split is the training split {self.train_split!r}; left out, a share of it is held out"
            )


class HuggingFace(Dataset):
    """Images and labels of a data set in the format of the `datasets` library."""

    Config = HuggingFaceConfig
    also_called = ("datasets", "hf")

    @classmethod
    def downloads(cls, config: HuggingFaceConfig) -> Iterable[Download]:
        _library()
        return [hub_dataset(config.path, config.name, config.revision)] if _on_hub(config) else ()

    def __init__(self, config: HuggingFaceConfig) -> None:
        splits = _open(config)
        train_rows = _rows(splits, config.train_split, config)
        self.image_size = config.image_size
        self.class_names = _class_names(train_rows, config)
        self.num_classes = len(self.class_names)
        train = _labelled(train_rows, config.train_split, self.class_names, config)
        validation = None
        if config.validation_split is not None:
            validation_rows = _rows(splits, config.validation_split, config)
            validation = _labelled(validation_rows, config.validation_split, self.class_names, config)
        self.train, self.validation = two_splits(train, validation, config.validation_share, self.class_names, config)


def _on_hub(config: HuggingFaceConfig) -> bool:
    return not local(config.path).exists() and _NAME.fullmatch(config.path) is not None


class _HubPictures(StoredPictures):
    """One column of a `datasets.Dataset`, not decoded.

    Args:
        column: of structs with `bytes` and `path`.
        where: the table, for messages.
        own: the table's own fingerprint, if it was saved with the table.
    """

    def __init__(self, column: Any, where: str, own: str | None) -> None:
        self._column = column
        self._where = self.place = where
        self._own = own

    def __len__(self) -> int:
        return len(self._column)

    def read(self, index: int) -> bytes:
        (stored,) = self._column[index].values()
        if stored is None or (stored["bytes"] is None and stored["path"] is None):
            raise ValueError("this row has no image")
        return Path(stored["path"]).read_bytes() if stored["bytes"] is None else bytes(stored["bytes"])

    def location(self, index: int) -> str:
        return f"{self._where}, row {index}"

    def versions(self) -> list[str]:
        files = [entry["filename"] for entry in self._column.cache_files]
        table = repr((self._column._fingerprint, *((file, _size_and_time(file)) for file in files)))
        _, paths = self._cells()
        states = ((table, row, row in paths and _size_and_time(paths[row])) for row in range(len(self)))
        return [hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest() for state in states]

    @property
    def listing(self) -> bytes:
        digest = hashlib.blake2b(repr((len(self), self._column.column_names, self._own)).encode(), digest_size=16)
        sizes, paths = self._cells()
        for row, path in paths.items():
            sizes[row], _ = _size_and_time(path)
        digest.update(sizes.data)
        return digest.digest()

    def missing(self) -> list[int]:
        """The rows that have no image."""
        sizes, paths = self._cells()
        return [int(row) for row in np.flatnonzero(sizes < 0) if int(row) not in paths]

    def _cells(self) -> tuple[NDArray[np.int64], dict[int, str]]:
        """(n,) the bytes of each image in the table, -1 if it has none; paths of images outside of it, by row."""
        sizes, paths = [], {}
        start = 0
        for batch in self._column.with_format("arrow").iter(_ROWS_AT_ONCE):
            for cells in batch.column(0).chunks:  # not combined: that would read all images
                cells.validate(full=True)
                lengths = _lengths(cells.field("bytes"))
                lengths[_nulls(cells)] = -1
                for row in np.flatnonzero(lengths < 0).tolist():
                    cell = cells[row].as_py()
                    if cell is not None and cell["path"] is not None:
                        paths[start + row] = cell["path"]
                sizes.append(lengths)
                start += len(lengths)
        return np.concatenate([*sizes, np.empty(0, np.int64)]), paths


def _lengths(values: Any) -> NDArray[np.int64]:
    """(n,) the length of each of n byte strings in an arrow array, -1 for null."""
    from pyarrow import compute

    lengths = compute.binary_length(values)
    return np.array(compute.fill_null(lengths, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def _nulls(values: Any) -> NDArray[np.bool_]:
    return np.array(values.is_null().to_numpy(zero_copy_only=False))


def _size_and_time(file: str) -> tuple[int, int]:
    """Size and time of a file, -1 without one."""
    try:
        state = Path(file).stat()
    except (OSError, ValueError):
        return -1, -1
    return state.st_size, state.st_mtime_ns


def _open(config: HuggingFaceConfig) -> Any:
    """A `datasets.DatasetDict` from the hub, from its cache, or from a folder."""
    datasets = _library()
    folder = local(config.path)
    saved = _is_saved(folder)
    of_hub = ["name", "revision"] if saved else ["revision"] if folder.exists() else []
    if ignored := list(changed_options(config, *of_hub)):
        what = "%s: %s of the hub, without effect on files of this machine"
        _log.warning(what, config.path, " and ".join(ignored))
    try:
        if saved:
            opened = datasets.load_from_disk(str(folder))
        else:
            for download in HuggingFace.downloads(config):
                download.require(config.path)
            path = str(folder) if folder.exists() else config.path
            opened = open_dataset(path, config.name, config.revision)
    except Exception as error:  # the library and those below it raise many types
        raise RobustokError(
            f"the data set cannot be opened ({reason_of(error)})", where=config.path, hint=_hint(error)
        ) from error
    return opened if isinstance(opened, dict) else {str(opened.split or "train"): opened}


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        hint = "pip install 'robustok[huggingface]'"
        raise RobustokError("this data set needs the package `datasets`", where="huggingface", hint=hint) from error
    return datasets


def _hint(error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return "the hub cannot be reached: go online once to cache a copy, or give a local folder"
    if "script" in str(error) or "trust_remote_code" in str(error):
        return (
            "code of a data set is never run: convert it to parquet, or use its branch refs/convert/parquet (revision)"
        )
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


def _labels(rows: Any, config: HuggingFaceConfig) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(n,) integers or names, and (n,) whether a row has no label."""
    import pyarrow as arrow

    with _naming_damage(config.path):
        column = rows.select_columns([config.label_column]).with_format("arrow")[:].column(0)
        column.validate(full=True)
    if arrow.types.is_integer(column.type):
        filled = column.fill_null(0)
    elif arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type):
        filled = column.fill_null("")
    elif arrow.types.is_null(column.type):
        filled = column.cast(arrow.string()).fill_null("")
    else:
        what = f"column {config.label_column!r} holds {rows.features[config.label_column]}, not integers or names"
        raise RobustokError(what, where=config.path)
    return filled.to_numpy(), _nulls(column)


@contextmanager
def _naming_damage(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise RobustokError(f"this table is damaged ({error})", where=where) from error


def _class_names(rows: Any, config: HuggingFaceConfig) -> tuple[str, ...]:
    """The declared class names, or those that occur in the training split."""
    declared = getattr(rows.features[config.label_column], "names", None)
    if declared:
        return tuple(declared)
    labels, without = _labels(rows, config)
    labels = labels[~without]
    if np.issubdtype(labels.dtype, np.integer):
        top = int(labels.max()) if len(labels) else 0
        if top >= max(1, len(labels)):
            raise RobustokError(f"the label {top} is too high for {len(labels)} training images", where=config.path)
        return tuple(str(label) for label in range(top + 1))
    return tuple(sorted({str(label) for label in labels}))


def _labelled(rows: Any, split: str, class_names: Sequence[str], config: HuggingFaceConfig) -> Labelled:
    where = f"{config.path}, {split}"
    labels, without = _labels(rows, config)
    _refuse_rows(np.flatnonzero(without).tolist(), len(rows), "label", where, config.on_bad_file)
    if not np.issubdtype(labels.dtype, np.integer):
        labels = _numbers(labels, without, class_names, where)
    numbers = torch.full((len(rows),), _NO_LABEL)
    numbers[torch.from_numpy(~without)] = as_labels(labels[~without], int((~without).sum()), where)
    pictures = _pictures(rows, where, config)
    with _naming_damage(where):
        missing = pictures.missing()
    if config.on_bad_file == "refuse":
        _refuse_rows(missing, len(rows), "image", where, config.on_bad_file)
    used = checked(Labelled(pictures=pictures, labels=numbers, where=where), pictures, config)
    return used[(used.labels != _NO_LABEL).nonzero().flatten()] if without.any() else used


def _pictures(rows: Any, where: str, config: HuggingFaceConfig) -> _HubPictures:
    own = rows._fingerprint if _is_saved(local(config.path)) else None
    try:
        cells = rows.select_columns([config.image_column])
        return _HubPictures(cells.cast_column(config.image_column, _library().Image(decode=False)), where, own)
    except (TypeError, ValueError, NotImplementedError) as error:
        hint = f"the column is {rows.features[config.image_column]}"
        raise RobustokError(f"column {config.image_column!r} does not hold images", where=where, hint=hint) from error


def _refuse_rows(missing: Sequence[int], total: int, what: str, where: str, policy: Policy) -> None:
    refuse_or_log([f"row {row}" for row in missing], total, policy, where, f"rows that have no {what}")


def _numbers(
    labels: NDArray[Any], without: NDArray[np.bool_], class_names: Sequence[str], where: str
) -> NDArray[np.int64]:
    """(n,) the class of each name; 0 where there is none."""
    number = {name: label for label, name in enumerate(class_names)}
    unknown = next((str(label) for label in labels[~without] if str(label) not in number), None)
    if unknown is not None:
        raise RobustokError(f"the training split has no class {unknown!r}", where=where)
    return np.array([number.get(str(label), 0) for label in labels], dtype=np.int64)
