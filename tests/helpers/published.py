"""Parity files: weights, inputs and outputs of the published code at tiny size."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustok_core.recipe.registry import load_registry

PARITY = Path(__file__).parents[1] / "parity"


class Case:
    """A parity file: its weights under the published names, inputs, outputs, tolerances and configuration."""

    def __init__(self, name: str) -> None:
        about = json.loads((PARITY / f"{name}.json").read_text())
        self.config, self.limits = about["config"], about["tolerance"]
        tensors = load_file(PARITY / f"{name}.safetensors")
        self.weights = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
        self.inputs = {key[3:]: value for key, value in tensors.items() if key.startswith("in.")}
        self.outputs = {key[4:]: value for key, value in tensors.items() if key.startswith("out.")}

    def check(self, **actual: Tensor) -> None:
        """Compares every output of the file."""
        assert actual.keys() == self.outputs.keys(), "every output is compared"
        for name, value in actual.items():
            limits, expected = self.limits[name], self.outputs[name]
            if limits.get("exact"):
                assert torch.equal(value, expected), name
            else:
                torch.testing.assert_close(value, expected, atol=limits["atol"], rtol=limits["rtol"], msg=name)

    def load(self, importer: str, folder: Path, **options: Any):
        """The table, the component and the report of an importer that reads these weights."""
        file = folder / "weights.safetensors"
        save_file(self.weights, file)
        return import_file(importer, file, **options)

    def same_weights(self, exported: Mapping[str, Tensor]) -> bool:
        """Whether an export has exactly these names and weights."""
        same = exported.keys() == self.weights.keys()
        return same and all(
            torch.equal(exported[name], value.to(exported[name].dtype)) for name, value in self.weights.items()
        )


def import_file(importer: str, file: Path, **options: Any):
    """The table, the component and the report of an importer that reads a file."""
    registry = load_registry()
    return registry.build("importer", {"use": importer, **options}).load(file, registry)


def export(importer: str, component: Any) -> Mapping[str, Tensor]:
    """A component's weights under the published names."""
    return load_registry().build("importer", {"use": importer}).export(component)


def millions(kind: str, table: Mapping[str, Any], *args: Any) -> float:
    """The number of parameters of a recipe table's component, in millions; it is built without memory."""
    with torch.device("meta"):
        component = load_registry().build(kind, table, *args)
    return sum(parameter.numel() for parameter in component.parameters()) / 1e6


def noted_words(printed: str) -> list[str] | None:
    """The words of the command that `robustok export` printed for importing its file; None if it printed none."""
    lines = [line.strip() for line in printed.splitlines()]
    return next((shlex.split(line) for line in lines if line.startswith("robustok import ")), None)
