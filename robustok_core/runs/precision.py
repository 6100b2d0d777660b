"""Mixed precision as recipes name it: "no" (float32), "bf16", or "auto", which the device decides."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import attrs
import torch

Precision = Literal["auto", "no", "bf16"]


def computes_bf16(device: torch.device) -> bool:
    """Whether a device is known to compute bfloat16 natively.

    CUDA does from compute capability 8, CPUs with AMX or AVX512-BF16 do. Others emulate it, as slowly as at a tenth of
    the speed of float32, or nobody has measured.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Not oneDNN's own word: it says yes to any CPU that can emulate bfloat16.
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(supported is not None and supported() for supported in asked)


def autocast(precision: Precision | None, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Autocast as an option says; None leaves what is around as it is."""
    if precision is None:
        return contextlib.nullcontext()
    wanted = computes_bf16(device) if precision == "auto" else precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def settled(value: Any, precision: Literal["no", "bf16"]) -> Any:
    """A configuration in which every option of the type `Precision` that is "auto" is this one instead.

    It is `value` itself where there is no such option.
    """
    if attrs.has(type(value)):
        held = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
        auto = {name for name, one in held.items() if isinstance(one, str) and one == "auto" and _takes(value, name)}
        changed = {name: precision if name in auto else settled(one, precision) for name, one in held.items()}
        changes = {name: one for name, one in changed.items() if one is not held[name]}
        return attrs.evolve(value, **changes) if changes else value
    if isinstance(value, Mapping):
        table = {name: settled(one, precision) for name, one in value.items()}
        return table if any(one is not value[name] for name, one in table.items()) else value
    if isinstance(value, (list, tuple)):
        row = [settled(one, precision) for one in value]
        return type(value)(row) if any(one is not other for one, other in zip(row, value, strict=True)) else value
    return value


def _takes(config: Any, option: str) -> bool:
    """Whether an option is a precision: its choices are those of `Precision`, and perhaps more."""
    wanted = getattr(attrs.fields(attrs.resolve_types(type(config))), option).type
    choices = {choice for part in (wanted, *get_args(wanted)) for choice in get_args(part)}
    return set(get_args(Precision)) <= choices
