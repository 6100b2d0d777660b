"""A parity file: weights of a published model at tiny size, its inputs, and what the published code computes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

PARITY = Path(__file__).parents[1] / "parity"


class Case:
    """Weights under the published names, inputs, outputs, and `about`: the configuration and tolerances."""

    def __init__(self, name: str) -> None:
        self.about = json.loads((PARITY / f"{name}.json").read_text())
        tensors = load_file(PARITY / f"{name}.safetensors")
        self.weights = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
        self.inputs = {key[3:]: value for key, value in tensors.items() if key.startswith("in.")}
        self.outputs = {key[4:]: value for key, value in tensors.items() if key.startswith("out.")}

    def check(self, **actual: Tensor) -> None:
        """Compares with every output: codes must be equal, the others agree within the file's tolerances."""
        assert actual.keys() == self.outputs.keys(), "every output is compared"
        for name, value in actual.items():
            limits = self.about["tolerance"][name]
            if limits.get("exact"):
                assert torch.equal(value, self.outputs[name]), name
            else:
                torch.testing.assert_close(value, self.outputs[name], atol=limits["atol"], rtol=limits["rtol"])
