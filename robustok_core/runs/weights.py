"""Weights by name: whether they fit a module, and name prefixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from robustok_core.errors import RunError


def misfit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], spell: Callable[[str], str] = str) -> str:
    """Names up to three keys each that are missing, unexpected or have a wrong shape; "" if all fit.

    `spell` converts a key to the name that the message shows.
    """
    groups = {
        "missing": [spell(name) for name in sorted(wanted.keys() - tensors.keys())],
        "unexpected": [spell(name) for name in sorted(tensors.keys() - wanted.keys())],
        "wrong shape": sorted(
            f"{spell(name)}: {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted.keys() & tensors.keys()
            if tensors[name].shape != wanted[name].shape
        ),
    }
    parts = (
        f"{what} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" for what, names in groups.items() if names
    )
    return "; ".join(parts)


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads a state dict strictly.

    Raises:
        RunError: naming a few keys that are missing, unexpected or have a wrong shape.
    """
    wrong = misfit(module.state_dict(), tensors)
    if wrong:
        raise RunError(f"the weights do not fit the model: {wrong}", where=where)
    module.load_state_dict(dict(tensors))


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, with the prefix removed."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with a prefix added to their names."""
    return {prefix + name: tensor for name, tensor in tensors.items()}
