"""A content-addressed cache of tensors that processes and runs share."""

from __future__ import annotations

import hashlib
import logging
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

_log = logging.getLogger(__name__)
_HASH = "content_hash"


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
        self._damaged = False
        if folder is not None:
            key = hashlib.sha256(repr(content()).encode()).hexdigest()[:24]
            self._file = folder / f"{name}_{key}.safetensors"

    def read(self) -> dict[str, Tensor] | None:
        """The tensors if every process can read the file, else None on all of them. All processes must call it.

        The decision must be the same everywhere: a process that computes would wait forever for one that has read.
        A damaged file is as good as none: it is logged, and replaced by `keep`.
        """
        tensors = self._read()
        missing = torch.tensor([1 if tensors is None else 0], device=communication_device())
        return None if all_sum(missing).item() > 0 else tensors

    def _read(self) -> dict[str, Tensor] | None:
        if self._file is None or not self._file.is_file():
            return None
        try:
            tensors = read_tensors(self._file)
        except RobustokError as error:
            self._damaged, reason = True, error.what
        else:
            known = tensors.pop(_HASH, None)
            if known is not None and torch.equal(known, _hash(tensors)):
                return tensors
            self._damaged, reason = True, "its content has changed, or another version of robustok wrote it"
        _log.warning("%s: is computed again: %s", self._file, reason)
        return None

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Writes the file if there is none or a damaged one; does nothing except on the main process.

        Raises:
            RunError: the file cannot be written.
        """
        if self._file is not None and rank() == 0 and (self._damaged or not self._file.is_file()):
            content = {**tensors, _HASH: _hash(tensors)}
            write_tensors(self._file, content, writer=str(os.getpid()))  # another run may write the same file
            self._damaged = False


def _hash(tensors: Mapping[str, Tensor]) -> Tensor:
    """(32,) uint8 hash of all names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(repr((name, tuple(values.shape), values.dtype)).encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
