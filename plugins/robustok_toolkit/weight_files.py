"""Reads published weight files without running what is in them."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robustok_core.errors import RobustokError

#: Where training scripts keep the weights, best first; a file with none of these is the weights itself.
_PLACES = ("ema", "model", "state_dict", "module")
_WRAPPERS = ("module.", "_orig_mod.")


@frozen(kw_only=True, eq=False)
class WeightFile:
    """What a file of weights held.

    Attributes:
        weights: tensors by name, without the prefixes of wrappers.
        place: the key they were under, "" where the file is nothing but weights.
        others: the file's other keys, which were not read.
    """

    weights: dict[str, Tensor]
    place: str
    others: list[str]


def read_weights(file: Path) -> WeightFile:
    """Reads a .safetensors, .pt, .pth or .bin file; of several sets of weights it takes ema, then model.

    Pickled files are read with torch's restricted unpickler, which builds tensors, containers and
    argparse.Namespace (training options) and runs nothing else. Prefixes of wrappers (`module.`,
    `_orig_mod.`) are taken off.

    Raises:
        RobustokError: the file is missing, damaged, holds anything but data, or holds no weights.
    """
    if not file.is_file():
        raise RobustokError("there is no such file", where=str(file))
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)
    if not isinstance(content, Mapping):
        raise RobustokError(f"this file holds a {type(content).__name__}, not weights by name", where=str(file))
    place = next((name for name in _PLACES if isinstance(content.get(name), Mapping)), "")
    held = content[place] if place else content
    weights = {_unwrapped(str(name)): value for name, value in held.items() if isinstance(value, Tensor)}
    if not weights:
        raise RobustokError("this file holds no weights", where=str(file))
    others = [str(name) for name, value in content.items() if name != place and not isinstance(value, Tensor)]
    return WeightFile(weights=weights, place=place, others=others)


def _read_safetensors(file: Path) -> Any:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise RobustokError(f"cannot be read as safetensors: {error}", where=str(file)) from error


def _read_pickled(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RobustokError(
            "this file holds more than weights, and may run code when it is read: refused",
            where=str(file),
            hint="ask its author for a safetensors file",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise RobustokError(f"cannot be read as a torch file: {error}", where=str(file)) from error


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name
