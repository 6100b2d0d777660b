"""Mixed precision in recipes: "no" (float32), "bf16", or "auto", which depends on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

import attrs
import torch

from robustok_core.values.devices import autocast_type

T = TypeVar("T")
Precision = Literal["auto", "no", "bf16"]
#: In what each precision computes.
COMPUTED: Mapping[str, str] = {"bf16": "bf16", "no": "float32"}
#: What "auto" came to, in words.
MEANING: Mapping[str, str] = {
    "bf16": "bf16, which is computed natively here",
    "no": "float32, as not every device here is known to compute bf16 natively",
}


def computes_bf16(device: torch.device) -> bool:
    """Whether a device is known to compute bfloat16 natively.

    CUDA devices do from compute capability 8 on, CPUs with AMX or AVX512-BF16. Other devices emulate it, at down to a
    tenth of the speed of float32, or have not been measured.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Not oneDNN's own check: it also accepts CPUs that only emulate bfloat16.
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(supported is not None and supported() for supported in asked)


def autocast(precision: Precision | None, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Autocast for a precision option; None leaves the surrounding autocast unchanged."""
    if precision is None:
        return contextlib.nullcontext()
    wanted = computes_bf16(device) if precision == "auto" else precision == "bf16"
    return torch.autocast(autocast_type(device), torch.bfloat16, enabled=wanted)


def as_on_gpus(recipe: T, announce: Callable[[str], None]) -> T:
    """A recipe with every precision that is "auto" taken as bf16, which `announce` is told if there is one."""
    found: T = settled(recipe, "bf16")
    if found is not recipe:
        announce('precision "auto" is taken as bf16')
    return found


def settled(value: Any, precision: Literal["no", "bf16"]) -> Any:
    """A configuration with every "auto" in an option of type `Precision` replaced by `precision`.

    Returns `value` itself if there is no such option.
    """
    if attrs.has(type(value)):
        options = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
        auto = {
            name for name, item in options.items() if isinstance(item, str) and item == "auto" and _takes(value, name)
        }
        changed = {name: precision if name in auto else settled(item, precision) for name, item in options.items()}
        changes = {name: item for name, item in changed.items() if item is not options[name]}
        return attrs.evolve(value, **changes) if changes else value
    if isinstance(value, Mapping):
        table = {name: settled(item, precision) for name, item in value.items()}
        return table if any(item is not value[name] for name, item in table.items()) else value
    if isinstance(value, (list, tuple)):
        row = [settled(item, precision) for item in value]
        return type(value)(row) if any(item is not other for item, other in zip(row, value, strict=True)) else value
    return value


def _takes(config: Any, option: str) -> bool:
    """Whether an option is a precision: its choices include all those of `Precision`."""
    wanted = getattr(attrs.fields(attrs.resolve_types(type(config))), option).type
    choices = {choice for part in (wanted, *get_args(wanted)) for choice in get_args(part)}
    return set(get_args(Precision)) <= choices
