"""Components on disk: a recipe table and weights, from which they are built again anywhere."""

from __future__ import annotations

from typing import Any
from robustok_core.kinds.generator import Generator
from robustok_core.values.latents import LatentSpace
from collections.abc import Mapping
from pathlib import Path
from robustok_core.recipe.registry import Registry
from robustok_core.errors import RobustokError
import attrs
from robustok_core.runs.weights import load_module
from torch import nn
from robustok_core.runs.files import read_json
from robustok_core.runs.files import read_tensors
import torch
from robustok_core.runs.files import write_json
from robustok_core.runs.files import write_tensors


COMPONENT_FILE = "component.json"


WEIGHTS_FILE = "model.safetensors"


def save_component(folder: Path, kind: str, table: Mapping[str, Any], module: nn.Module, **about: Any) -> None:
    """Writes a component as its recipe table and its weights, so that it can be built again anywhere."""
    if isinstance(module, Generator):
        about |= {"space": attrs.asdict(module.space), "num_classes": module.num_classes}
    write_json(folder / COMPONENT_FILE, {"kind": kind, "table": dict(table), **about})
    write_tensors(folder / WEIGHTS_FILE, module.state_dict())


def load_component(registry: Registry, folder: Path) -> nn.Module:
    """Builds a component that `save_component` wrote, in eval mode.

    Raises:
        RobustokError: where the folder holds none, or its weights do not fit.
    """
    if not (folder / COMPONENT_FILE).is_file():
        raise RobustokError("there is no component here", where=str(folder), hint="name an artifact's folder")
    about = read_json(folder / COMPONENT_FILE)
    args = (LatentSpace(**about["space"]), about["num_classes"]) if about["kind"] == "generator" else ()
    with torch.device("meta"):
        module = registry.build(about["kind"], about["table"], *args)
    weights = read_tensors(folder / WEIGHTS_FILE)
    module = module.to_empty(device="cpu")
    load_module(module, weights, str(folder))
    return module.eval()
