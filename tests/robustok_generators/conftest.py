"""Small generators without zero weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from robustok_core import load_registry
from robustok_core.kinds.generator import Generator
from robustok_core.values.draws import derive_seed
from robustok_core.values.latents import LatentSpace

SPACE = LatentSpace(kind="discrete", num_tokens=12, width=4, codebook_size=20, grid=(3, 4))
TABLES: dict[str, dict[str, Any]] = {
    "rar": {"use": "rar", "width": 24, "depth": 2, "num_heads": 2},
    "llamagen_gpt": {"use": "llamagen_gpt", "width": 24, "depth": 2, "num_heads": 2, "mlp_width": 40},
    "gigatok_gpt": {"use": "llamagen_gpt", "width": 24, "depth": 2, "num_heads": 2, "positions": "learned"},
}


@pytest.fixture(scope="session")
def make() -> Callable[..., Generator]:
    """Builds one of TABLES in eval mode with some options; all weights are random, so that all matter."""
    registry = load_registry()

    def make(name: str, space: LatentSpace = SPACE, num_classes: int = 5, **options: Any) -> Generator:
        generator = registry.build("generator", {**TABLES[name], **options}, space, num_classes)
        numbers = torch.Generator().manual_seed(derive_seed(name))
        for parameter in generator.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=numbers)
        for key, parameter in generator.named_parameters():
            if "norm" in key and key.endswith("weight"):
                parameter.data += 1.0
        return generator.eval()

    return make
