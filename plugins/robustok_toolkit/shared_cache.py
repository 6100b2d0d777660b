"""A content-addressed cache of tensors that processes and runs share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.runs.files import read_tensors, write_tensors
from robustok_core.values.spec import wrong_name
from robustok_training.distributed import all_sum, communication_device, rank


class CacheEntry:
    """Tensors that are slow to compute, stored as a file in a cache folder.

    Args:
        folder: the cache; with None, nothing is read or written.
        name: prefix of the file name, for people who browse the folder.
        content: returns everything that the tensors depend on, as plain values; its hash ends the file name.
            Called only if there is a folder, because fingerprints take time.
    """

    def __init__(self, folder: Path | None, name: str, content: Callable[[], tuple[Any, ...]]) -> None:
        self._file = None
        if wrong := wrong_name(name):
            raise RobustokError(f"a file of the cache cannot be called {name!r}: {wrong}")
        if folder is not None:
            key = hashlib.sha256(repr(content()).encode()).hexdigest()[:24]
            self._file = folder / f"{name}_{key}.safetensors"

    def read(self) -> dict[str, Tensor] | None:
        """The tensors if every process sees the file, else None on all of them. All processes must call it.

        The decision must be the same everywhere: a process that computes would wait forever for one that has read.

        Raises:
            RunError: the file is damaged.
        """
        exists = self._file is not None and self._file.is_file()
        missing = torch.tensor([0 if exists else 1], device=communication_device())
        if all_sum(missing).item() > 0:
            return None
        assert self._file is not None
        return read_tensors(self._file)

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Writes the file if it does not exist yet; does nothing except on the main process.

        Raises:
            RunError: the file cannot be written.
        """
        if self._file is not None and rank() == 0 and not self._file.is_file():
            write_tensors(self._file, tensors, writer=str(os.getpid()))  # another run may write the same file
