"""The component under test, and the assertions that all checks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from robustok_core.kinds import expectations
from robustok_core.recipe.registry import Registry
from robustok_core.values.draws import Draws, seeded
from robustok_core.values.finite import all_finite
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
    """The component under test."""

    spec: Spec
    registry: Registry

    def build(self, *args: Any, seed: int = 0) -> Any:
        """Builds the component with weights from a seed."""
        with seeded("robustok.testing", seed):
            return self.spec.build(*args)

    def other(self, kind: str, table: Mapping[str, Any], *args: Any) -> Any:
        """Builds another component that the check needs."""
        with seeded("robustok.testing", kind):
            return self.registry.build(kind, table, *args)

    def require(self, holds: bool, message: str) -> None:
        """Raises AssertionError, prefixed with the component's name, unless `holds`."""
        if not holds:
            raise AssertionError(f"{self.spec.kind} {self.spec.name!r}: {message}")

    def scalar(self, value: Any, what: str) -> None:
        """Requires a finite floating point tensor of shape ()."""
        expectations.scalar(self, value, what)
        self.require(all_finite(value), f"{what} is {value.item()}, which is not finite")

    def tensor(self, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None, what: str) -> None:
        """Requires a tensor of a shape and dtype; None stands for floating point, but not of 64 bits."""
        expectations.tensor(self, value, shape, dtype, what)
        if dtype is None:
            self._not_double(value, what)

    def _not_double(self, value: Tensor, what: str) -> None:
        """The inputs have 32 bits; 64 would double the memory and slow every later layer."""
        self.require(value.dtype != torch.float64, f"{what} are of torch.float64 for inputs of torch.float32")

    def latents(self, latents: Any, space: LatentSpace, rows: int, maker: str) -> None:
        """Requires latents of a space: valid codes in a discrete space, finite vectors in a continuous one."""
        expectations.latents(self, latents, space, rows, maker)
        if latents.vectors is not None:
            expectations.finite(self, latents.vectors, f"`{maker}` returns vectors that are not finite")
            self._not_double(latents.vectors, f"vectors of `{maker}`")


def close(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors are equal up to rounding."""
    return torch.allclose(one.float(), two.float(), rtol=1e-4, atol=1e-5)


def same(first: Latents, second: Latents) -> bool:
    """Whether latents are equal: codes exactly, vectors up to rounding."""
    for name in ("codes", "vectors"):
        one, two = getattr(first, name), getattr(second, name)
        if (one is None) != (two is None):
            return False
        if one is not None and not (torch.equal(one, two) if name == "codes" else close(one, two)):
            return False
    return True


def pictures(count: int, size: int, seed: int = 0) -> Tensor:
    """(count, 3, size, size) float32 in [-1, 1]: smooth random images, all different."""
    coarse = Draws.for_rows(seed, count).uniform(3, 4, 4) * 2.0 - 1.0
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def module_checks(subject: Subject, *args: Any, sketched: bool) -> tuple[Any, Any]:
    """Checks every network: reproducible builds, a build on the meta device, and weights that can be loaded.

    Args:
        args: constructor arguments after the configuration. sketched: whether it must build on the meta device.

    Returns:
        The component, and one built with another seed into which its weights were loaded.
    """
    first, again = subject.build(*args), subject.build(*args)
    state = first.state_dict()
    for name, value in again.state_dict().items():
        equal = name in state and torch.equal(value, state[name])
        subject.require(
            equal, f"two builds with the same seed differ in {name}; initialise weights with torch's generator"
        )
    if sketched:
        _sketch_checks(subject, state, *args)
    loaded = subject.build(*args, seed=1)
    loaded.load_state_dict(state)
    return first, loaded


def _sketch_checks(subject: Subject, state: Mapping[str, Tensor], *args: Any) -> None:
    try:
        with torch.device("meta"):
            sketch = subject.build(*args).state_dict()
    except Exception as error:  # any failure here is caused by the device
        prefix = f"{subject.spec.kind} {subject.spec.name!r}"
        raise AssertionError(
            f"{prefix}: it cannot be built on the meta device, as loading requires: {error}"
        ) from error
    shapes = {name: value.shape for name, value in sketch.items()}
    same_shapes = shapes == {name: value.shape for name, value in state.items()}
    subject.require(same_shapes, "names or shapes of its weights on the meta device differ from those on the CPU")
