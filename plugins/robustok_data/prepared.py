"""Images that `robustok prepare` has cropped, read as they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.kinds.dataset import Dataset, Images
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_data.arrays import mirror_some, to_unit_range
from robustok_data.file_ranges import FileRange, FileRangePictures
from robustok_data.pictures import limit_field, limited_rows
from robustok_data.places import local, place_field
from robustok_data.splits import check_classes, check_labels
from robustok_toolkit.image_decoding import why_unreadable
from robustok_toolkit.prepared_files import (
    CHECKSUM,
    LABEL,
    Prepared,
    PreparedManifest,
    checksum,
    damaged_image,
    decoded,
    read_index,
    read_prepared,
)


@frozen(kw_only=True)
class PreparedConfig:
    """Options of `prepared`."""

    path: str = place_field("folder that `robustok prepare` made")
    flip: bool = field(default=False, metadata={"doc": "mirror half of the training images"})
    train_limit: int | None = limit_field("training")
    validation_limit: int | None = limit_field("validation")


class PreparedDataset(Dataset):
    """Images of one size, cropped beforehand; each is compared with its checksum when it is read.

    A training gets the same numbers as from the data set that they were made from. Random crops and ten crops need
    more of an image than is stored.
    """

    Config = PreparedConfig

    def __init__(self, config: PreparedConfig) -> None:
        folder = local(config.path)
        manifest = read_prepared(folder)
        prepared = manifest.prepared
        self.image_size = prepared.image_size
        self.class_names = prepared.class_names
        self.num_classes = len(self.class_names)
        self.train = PreparedImages(config, manifest, "train", config.train_limit)
        self.validation = PreparedImages(config, manifest, "validation", config.validation_limit)
        check_labels(self.train.labels, self.num_classes, str(folder))
        check_classes(self.train.labels, self.class_names, str(folder))
        check_labels(self.validation.labels, self.num_classes, str(folder))


class PreparedImages(Images):
    """A split of prepared images.

    Its fingerprint covers every pixel and label, and is the same for both formats and any size of shards.

    Args:
        config: the options. manifest: of the folder. split: "train" or "validation".
        limit: how many of its images are used; None for all.
    """

    def __init__(self, config: PreparedConfig, manifest: PreparedManifest, split: str, limit: int | None) -> None:
        folder = local(config.path)
        self._prepared: Prepared = manifest.prepared
        self._flip = config.flip
        pieces: list[FileRange] = []
        indices = []
        for shard in self._prepared.shards(split):
            index, file = read_index(folder, manifest, shard), str(self._prepared.images_file(folder, shard))
            indices.append(index)
            for number, (_, offset, size, _) in enumerate(index.tolist()):
                pieces.append(FileRange(file, offset, size, f"image {number}", 0))
        whole = np.concatenate(indices)
        rows = limited_rows(torch.from_numpy(whole[:, LABEL].copy()), limit)
        whole = whole[rows.numpy()]
        self._pictures = FileRangePictures([pieces[row] for row in rows.tolist()], str(folder))
        self._labels = torch.from_numpy(whole[:, LABEL].copy())
        self._checksums = whole[:, CHECKSUM].copy()

    @property
    def labels(self) -> Tensor:
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        about = ("prepared", len(self), self._prepared.image_size)
        digest = hashlib.blake2b(repr(about).encode(), digest_size=16)
        digest.update(self._labels.numpy().data)
        digest.update(self._checksums.data)
        return digest.hexdigest()

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        stored = np.stack([self._pixels(index) for index in rows.tolist()])
        pixels = torch.from_numpy(stored).permute(0, 3, 1, 2)  # (B, 3, H, W)
        if draws is not None and self._flip:
            pixels = mirror_some(pixels, draws)
        return ImageBatch(images=to_unit_range(pixels.contiguous()), labels=self._labels[rows], indices=rows)

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        """(S, S, 3), as they were stored."""
        try:
            pixels = decoded(self._pictures.read(index), self._prepared)
        except MemoryError as error:
            where = self._pictures.location(index)
            raise RunError("there is not enough memory to decode this image", where=where) from error
        except Exception as error:  # Pillow raises many types for damaged files
            raise damaged_image(self._pictures.location(index), why_unreadable(error)) from error
        if checksum(pixels) != int(self._checksums[index]):
            raise damaged_image(self._pictures.location(index), "its checksum differs")
        return pixels
