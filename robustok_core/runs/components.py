"""Components on disk: a recipe table and weights, from which a component can be rebuilt anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.generator import Generator
from robustok_core.runs.files import read_json, read_tensors, write_json, write_tensors
from robustok_core.runs.weights import load_module
from robustok_core.values.latents import LatentSpace

COMPONENT_FILE = "component.json"


WEIGHTS_FILE = "model.safetensors"


def save_component(folder: Path, kind: str, table: Mapping[str, Any], module: nn.Module, **about: Any) -> None:
    """Writes a component's recipe table and weights, and `about`, further entries of component.json."""
    if isinstance(module, Generator):
        about |= {"space": attrs.asdict(module.space), "num_classes": module.num_classes}
    write_json(folder / COMPONENT_FILE, {"kind": kind, "table": dict(table), **about})
    write_tensors(folder / WEIGHTS_FILE, module.state_dict())


def read_component(folder: Path) -> dict[str, Any]:
    """Reads component.json as `save_component` wrote it: "kind", "table" and more.

    Raises:
        RobustokError: if the folder holds no component.
    """
    if not (folder / COMPONENT_FILE).is_file():
        raise RobustokError("there is no component here", where=str(folder), hint="name an artifact's folder")
    return read_json(folder / COMPONENT_FILE)


def sketch_component(registry: Builder, folder: Path) -> Any:
    """Builds a component that `save_component` wrote on the meta device: shapes without weights."""
    about = read_component(folder)
    return registry.spec(about["kind"], about["table"]).sketch(*_arguments(about))


def _arguments(about: Mapping[str, Any]) -> tuple[Any, ...]:
    """The constructor arguments of a component besides its configuration."""
    return (LatentSpace(**about["space"]), about["num_classes"]) if about["kind"] == "generator" else ()


def load_component(registry: Builder, folder: Path) -> nn.Module:
    """Builds a component that `save_component` wrote, in eval mode.

    Raises:
        RobustokError: if the folder holds no component, or its weights do not fit.
    """
    module = sketch_component(registry, folder)
    weights = read_tensors(folder / WEIGHTS_FILE)
    module = module.to_empty(device="cpu")
    load_module(module, weights, str(folder))
    return module.eval()
