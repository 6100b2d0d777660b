"""Weights by name: whether they fit a module, and name prefixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from robustok_core.errors import RunError
from robustok_core.values.wording import short_name, some_names


def misfit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], spell: Callable[[str], str] = str) -> str:
    """Names up to three keys each that are missing, unexpected or have a wrong shape or type; "" if all fit.

    `spell` converts a key to the name that the message shows.
    """
    both = sorted(wanted.keys() & tensors.keys())
    groups = {
        "missing": [short_name(spell(name)) for name in sorted(wanted.keys() - tensors.keys())],
        "unexpected": [short_name(spell(name)) for name in sorted(tensors.keys() - wanted.keys())],
        "wrong shape": [
            f"{spell(name)}: {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in both
            if tensors[name].shape != wanted[name].shape
        ],
        "wrong type": [
            f"{spell(name)}: {_dtype(tensors[name])} instead of {_dtype(wanted[name])}"
            for name in both
            if not _converts(tensors[name], wanted[name])
        ],
    }
    parts = (f"{what} {some_names(names)}" for what, names in groups.items() if names)
    return "; ".join(parts)


def _converts(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor's values mean the same in another type: half precision does, integers for floats do not.

    Floats of 8 bits or fewer do not either: they are quantized weights, whose scales are stored elsewhere.
    """
    if tensor.is_floating_point() and wanted.is_floating_point():
        return tensor.dtype == wanted.dtype or tensor.element_size() > 1
    return tensor.dtype == wanted.dtype or (_is_integer(tensor) and _is_integer(wanted))


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized) and _dtype(tensor) != "bool"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def not_finite(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], spell: Callable[[str], str] = str) -> str:
    """Names up to three tensors whose values are NaN or infinite once they have the wanted type; "" if there are none.

    Args:
        wanted: gives the types that the tensors will be converted to.
        tensors: fit `wanted` (see `misfit`).
        spell: converts a key to the name that the message shows.
    """
    found = []
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.is_meta:
            broken = int((~tensor.to(wanted[name].dtype).isfinite()).sum())
            if broken:
                found.append(f"{spell(name)} ({broken:,} of {tensor.numel():,} values)")
    return some_names(found)


def check_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str, spell: Callable[[str], str] = str
) -> None:
    """Checks that tensors are a state dict of a module, which may be on the meta device, with finite values.

    Raises:
        RunError: naming a few keys that are missing, unexpected, have a wrong shape or type, or are not finite.
    """
    wanted = module.state_dict()
    if wrong := misfit(wanted, tensors, spell):
        raise RunError(f"the weights do not fit the model: {wrong}", where=where)
    if broken := not_finite(wanted, tensors, spell):
        hint = "the file is damaged, or the training that wrote it diverged"
        raise RunError(f"weights are NaN or infinite: {broken}", where=where, hint=hint)


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads a state dict strictly.

    Raises:
        RunError: as `check_weights`; the module is unchanged then.
    """
    check_weights(module, tensors, where)
    module.load_state_dict(dict(tensors))


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, with the prefix removed."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with a prefix added to their names."""
    return {prefix + name: tensor for name, tensor in tensors.items()}
