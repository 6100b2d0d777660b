"""What is checked, and how it is told that it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from robustok_core.recipe.registry import Registry
from robustok_core.values.draws import Draws, seeded
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import Spec

#: A small tokenizer of first-party plugins: 4 x 4 tokens of width 4, K = 32.
TINY_TOKENIZER: Mapping[str, Any] = {
    "use": "conv_vq",
    "image_size": 32,
    "channels": 8,
    "channel_multipliers": [1, 1],
    "num_res_blocks": 1,
    "attention": False,
    "norm_groups": 4,
    "stem_patch": 4,
    "z_channels": 8,
    "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
}
DISCRETE = LatentSpace(kind="discrete", num_tokens=16, width=4, codebook_size=32, grid=(4, 4))
CONTINUOUS = LatentSpace(kind="continuous", num_tokens=16, width=4, grid=(4, 4))


@frozen(kw_only=True, eq=False)
class Subject:
    """A component that is checked."""

    spec: Spec
    registry: Registry

    def build(self, *args: Any, seed: int = 0) -> Any:
        """The component, its weights drawn from a seed."""
        with seeded("robustok.testing", seed):
            return self.spec.build(*args)

    def other(self, kind: str, table: Mapping[str, Any], *args: Any) -> Any:
        """Another component that the check needs."""
        with seeded("robustok.testing", kind):
            return self.registry.build(kind, table, *args)

    def require(self, holds: bool, sentence: str) -> None:
        """Raises AssertionError, with the component's name in front, unless a promise holds."""
        if not holds:
            raise AssertionError(f"{self.spec.kind} {self.spec.name!r}: {sentence}")

    def scalar(self, value: Any, what: str) -> None:
        """Requires a tensor with one finite number."""
        is_scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
        self.require(is_scalar, f"{what} must be a scalar tensor of a floating point type, found {_told(value)}")
        self.require(bool(value.isfinite()), f"{what} is {value.item()}, which is not finite")

    def tensor(self, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None, what: str) -> None:
        """Requires a tensor of a shape and type; None is any floating point type."""
        fits = isinstance(value, Tensor) and value.shape == shape
        fits = fits and (value.dtype == dtype if dtype is not None else value.is_floating_point())
        wanted = "of floating point numbers" if dtype is None else f"of {dtype}"
        self.require(fits, f"{what} must be a tensor {shape} {wanted}, found {_told(value)}")

    def latents(self, found: Any, space: LatentSpace, rows: int, maker: str) -> None:
        """Requires latents of a space: codes where it has any, which lie in the codebook; else finite vectors."""
        self.require(isinstance(found, Latents), f"`{maker}` must return Latents, found {type(found).__name__}")
        if found.vectors is not None or space.codebook_size is None:
            self.tensor(found.vectors, (rows, space.num_tokens, space.width), None, f"vectors of `{maker}`")
            self.require(bool(found.vectors.isfinite().all()), f"`{maker}` makes vectors that are not finite")
        if space.codebook_size is None:
            self.require(found.codes is None, f"`{maker}` makes codes in a continuous space")
            return
        self.tensor(found.codes, (rows, space.num_tokens), torch.int64, f"codes of `{maker}`")
        inside = bool(((found.codes >= 0) & (found.codes < space.codebook_size)).all())
        self.require(inside, f"`{maker}` makes codes outside of [0, {space.codebook_size})")


def _told(value: Any) -> str:
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def close(one: Tensor, two: Tensor) -> bool:
    """Whether two results are the same but for the order of sums."""
    return torch.allclose(one.float(), two.float(), rtol=1e-4, atol=1e-5)


def same(first: Latents, second: Latents) -> bool:
    """Whether latents are equal, vectors but for the order of sums."""
    for name in ("codes", "vectors"):
        one, two = getattr(first, name), getattr(second, name)
        if (one is None) != (two is None):
            return False
        if one is not None and not (torch.equal(one, two) if name == "codes" else close(one, two)):
            return False
    return True


def pictures(count: int, size: int, seed: int = 0) -> Tensor:
    """(count, 3, size, size) float32 in [-1, 1]: smooth ones, each of its own."""
    coarse = Draws.for_rows(seed, count).uniform(3, 4, 4) * 2.0 - 1.0
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def module_checks(subject: Subject, *args: Any, sketched: bool) -> tuple[Any, Any]:
    """What every network promises: equal builds, one on the meta device, and weights that can be loaded.

    Args:
        args: what it is built with. sketched: whether it must build on the meta device.

    Returns:
        The component, and one that was built with another seed and then given its weights.
    """
    first, again = subject.build(*args), subject.build(*args)
    state = first.state_dict()
    for name, value in again.state_dict().items():
        equal = name in state and torch.equal(value, state[name])
        subject.require(equal, f"two builds with the same seed differ in {name}; draw weights with torch's generator")
    if sketched:
        _sketch_checks(subject, state, *args)
    loaded = subject.build(*args, seed=1)
    loaded.load_state_dict(state)
    return first, loaded


def _sketch_checks(subject: Subject, state: Mapping[str, Tensor], *args: Any) -> None:
    try:
        with torch.device("meta"):
            sketch = subject.build(*args).state_dict()
    except Exception as error:  # whatever it is, it comes of the device
        told = f"{subject.spec.kind} {subject.spec.name!r}: it cannot be built on the meta device, as a run does"
        raise AssertionError(f"{told} to load it: {error}") from error
    shapes = {name: value.shape for name, value in sketch.items()}
    same_shapes = shapes == {name: value.shape for name, value in state.items()}
    subject.require(same_shapes, "on the meta device it has other weights than on the CPU")
