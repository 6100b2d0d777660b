"""Files of tensors, named by content, that several processes and runs share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from robustok_core.runs.files import write_tensors, writing
from robustok_training.distributed import all_sum


def found_by_all(file: Path | None) -> bool:
    """Whether every process sees the file: they must decide alike, or wait for each other for ever."""
    found = file is not None and file.is_file()
    missing = torch.tensor([0 if found else 1], device=communication_device())
    return all_sum(missing).item() == 0


def write_whole(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes aside under a name of this process, then renames: other runs may share the cache."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write_tensors(aside, tensors)
        with writing(file):
            aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def communication_device() -> torch.device:
    """Where tensors must be for processes to exchange them."""
    nccl = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.device("cuda" if nccl and torch.distributed.get_backend() == "nccl" else "cpu")
