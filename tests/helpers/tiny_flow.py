"""A small flow transformer, and what tests ask of it."""

from __future__ import annotations

import torch

from robustok_core.recipe.registry import load_registry
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Latents, LatentSpace
from robustok_generators.flow_sampling import FlowSampling

SPACE = LatentSpace(kind="continuous", num_tokens=6, width=4)
GRID = LatentSpace(kind="continuous", num_tokens=6, width=4, grid=(2, 3))
TINY = {"use": "flow_transformer", "width": 32, "depth": 2, "num_heads": 4}
LIGHTNING = {"norm": "rms", "mlp": "swiglu", "rope": True}
METHODS = ["euler", "heun", "dopri5", "euler_maruyama"]
OPTIONS: dict[str, dict[str, float]] = {"dopri5": {"tolerance": 1e-3}}
FREE = Guidance()
REGISTRY = load_registry()


def make(space: LatentSpace = SPACE, **options: object):
    """A new model; its velocity is 0 everywhere."""
    torch.manual_seed(0)
    return REGISTRY.build("generator", {**TINY, **options}, space, 10).eval()


def sharp(space: LatentSpace = SPACE, **options: object):
    """A model whose outputs depend on time and class."""
    model = make(space, **options)
    for name, parameter in model.named_parameters():
        if "modulation" in name or "to_velocity" in name or "label" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def real(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 6, 4, generator=torch.Generator().manual_seed(seed))


def noise_of(draws: Draws) -> torch.Tensor:
    return draws.child("noise").normal(6, 4)


def sampled(model, labels, draws, guidance=FREE, keep=None, **options: object) -> torch.Tensor:
    options = options if options.get("method") == "dopri5" else {"steps": 4, **options}
    return model.sample(labels, draws, guidance=guidance, keep=keep, sampling=FlowSampling(**options)).vectors


def losses_of(model, vectors, labels, draws):
    with torch.no_grad():
        return model.loss(Latents(vectors=vectors), labels, draws=draws, progress=0.0)


class Watch:
    """Records a module's inputs."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.read: list[tuple[torch.Tensor, ...]] = []
        self.handle = module.register_forward_pre_hook(self.note)

    def note(self, module, read) -> None:
        self.read.append(read)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.handle.remove()
