"""Components that break a promise of their kind, and the message that a run ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from project import Project, registry_with
from robustok_core.kinds.boundary import BrokenPromise

Change = Callable[[Any], Any]


def returning(base: type, method: str, change: Change) -> type:
    """A component like `base`, except that `change` is applied to what one method returns."""
    original = getattr(base, method).__wrapped__
    return type("Wrong", (base,), {method: lambda self, *args, **kwargs: change(original(self, *args, **kwargs))})


def vectors(change: Change) -> Change:
    return lambda latents: latents.evolve(vectors=change(latents.vectors))


def codes(change: Change) -> Change:
    return lambda latents: latents.evolve(codes=change(latents.codes))


def not_finite(value: torch.Tensor) -> torch.Tensor:
    return value * float("nan")


def detached(value: torch.Tensor) -> torch.Tensor:
    return value.detach()


def trained_elsewhere(value: torch.Tensor) -> torch.Tensor:
    """The same values, which pass their gradient to another parameter than they should."""
    return value.detach() * torch.ones((), requires_grad=True)


def message_of(project: Project, method: str, **components: Any) -> str:
    """The one message with which a run of a recipe that uses wrong components ends."""
    with pytest.raises(BrokenPromise) as caught:
        project.run(registry=registry_with(**components))
    assert caught.value.exit_code == 1
    assert str(caught.value.where).endswith(f"Wrong.{method}")
    return caught.value.what
