"""Reads published weight files without executing code in them."""

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

#: Keys under which training scripts store weights, best first; without any of them, the file itself is the weights.
_KEYS = ("ema", "model", "state_dict", "module")
_WRAPPERS = ("module.", "_orig_mod.")


@frozen(kw_only=True, eq=False)
class WeightFile:
    """The content of a weight file.

    Attributes:
        weights: tensors by name, without wrapper prefixes.
        key: the key that held them; "" if the file itself is the weights.
        others: the file's other keys, which were ignored.
    """

    weights: dict[str, Tensor]
    key: str
    others: list[str]


def read_weights(file: Path) -> WeightFile:
    """Reads a .safetensors, .pt, .pth or .bin file; of several sets of weights it takes ema, then model.

    Pickled files are read with torch's restricted unpickler, which builds only tensors, containers and
    argparse.Namespace (training options). Wrapper prefixes (`module.`, `_orig_mod.`) are removed.

    Raises:
        RobustokError: the file is missing or damaged, contains code, or holds no weights.
    """
    if not file.is_file():
        raise RobustokError("there is no such file", where=str(file))
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)
    if not isinstance(content, Mapping):
        raise RobustokError(f"this file holds a {type(content).__name__}, not named weights", where=str(file))
    key = next((name for name in _KEYS if isinstance(content.get(name), Mapping)), "")
    state = content[key] if key else content
    weights = {_unwrapped(str(name)): value for name, value in state.items() if isinstance(value, Tensor)}
    if not weights:
        raise RobustokError("this file holds no weights", where=str(file))
    others = [str(name) for name, value in content.items() if name != key and not isinstance(value, Tensor)]
    return WeightFile(weights=weights, key=key, others=others)


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
            "refused: this file holds more than weights, and reading it may run code",
            where=str(file),
            hint="ask its author for a safetensors file",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise RobustokError(f"cannot be read as a torch file: {error}", where=str(file)) from error


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name
