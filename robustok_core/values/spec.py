"""Components that are named and configured, but not built yet."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.values.distributions import owner_of, package_of, plugin_packages
from robustok_core.values.wording import failure_of

#: Parameters and buffers of one component; with an optimiser's state, these take more than a terabyte.
MOST_PARAMETERS = 10**11
#: Of torch's messages about the device; a plugin's own may speak of "meta", too.
_ON_META = re.compile(
    r"register_meta|meta (tensor|device)|(device|type)[ :='\"]+meta\b|on meta\b|['\"]meta['\"] (device|backend)"
)


@frozen(kw_only=True)
class Spec:
    """A component that is named and configured, but not built yet.

    Attributes:
        kind: its kind ("tokenizer").
        name: its name in the registry ("conv_vq").
        factory: the class.
        config: an instance of `factory.Config`.
    """

    kind: str
    name: str
    factory: Any
    config: Any

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Builds the component; the arguments are what its kind needs besides the configuration."""
        built = self.factory(self.config, *args, **kwargs)
        if (built_as := getattr(built, "built_as", None)) is not None:
            built_as(self.name)
        return built

    def sketch(self, *args: Any) -> Any:
        """Builds the component on the meta device: shapes without memory.

        Raises:
            RobustokError: if no machine could hold it, or its constructor needs the values of tensors.
        """
        import torch
        from torch import nn

        try:
            with torch.device("meta"):
                component = self.build(*args)
        except (RuntimeError, OverflowError, TypeError) as error:
            text = str(error).lower()
            if not isinstance(error, TypeError) and ("overflow" in text or "too large" in text):
                raise self._too_large("more numbers than can be counted") from error
            if _ON_META.search(text):  # anything else fails on each device
                raise self._needs_values(error) from error
            raise
        if isinstance(component, nn.Module):
            count = sum(tensor.numel() for tensor in (*component.parameters(), *component.buffers()))
            if count > MOST_PARAMETERS:
                raise self._too_large(f"{count:,} numbers ({count * 4 / 2**40:,.1f} TiB in float32)")
        return component

    def _too_large(self, size: str) -> RobustokError:
        hint = f"at most {MOST_PARAMETERS:,} are possible: choose smaller sizes"
        return RobustokError(f"the {self.kind} {self.name!r} would have {size}", hint=hint)

    def _needs_values(self, error: Exception) -> RobustokError:
        ran = list(traceback.walk_tb(error.__traceback__))
        built = [frame.f_locals["self"] for frame, _ in ran if frame.f_code is Spec.build.__code__]
        inner = built[-1] if built else self  # a tokenizer builds its quantizer
        what = f"the {inner.kind} {inner.name!r} cannot be built on torch's meta device, without values"
        packages = {package_of(inner.factory.__module__), *plugin_packages()}
        hint = "initialise with torch's functions, and read no values in `__init__`"
        for frame, line in reversed(ran):
            module = str(frame.f_globals.get("__name__"))
            if package_of(module) in packages:
                place = f"{frame.f_code.co_filename}, line {line}"
                hint += f"; this error happened in code of {owner_of(module)}: {frame.f_code.co_name} ({place})"
                break
        return RunError(f"{what} ({failure_of(error)})", hint=hint)

    def table(self) -> dict[str, Any]:
        """The recipe table of this component, with every default written out."""
        return {"use": self.name, **plain(self.config)}


def wrong_name(name: object) -> str | None:
    """Why a name cannot be part of a path (of a run, stage, artifact, loss, metric, ...), or None if it can."""
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return None
    return "a name starts with a letter or digit and has at most 100 letters, digits, dots, - and _"


def run_name(name: str, seed: int) -> str:
    """The name of the run with this seed, where one name stands for runs with several seeds."""
    return f"{name}-seed{seed}"


def component(kind: str, *, doc: str, default: Mapping[str, Any] | None = None, optional: bool = False) -> Any:
    """A configuration field for another component, held as a `Spec` (or None if optional)."""
    metadata = {"doc": doc, "kind": kind, "table": default, "optional": optional}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def components(kind: str, *, doc: str, default: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """A configuration field for components by name: dict[str, Spec]."""
    return field(metadata={"doc": doc, "kind": kind, "table": default, "named": True})


def sampler_options(*, doc: str) -> Any:
    """A configuration field for the options of a generator's sampler.

    In a recipe it is a table; planning the recipe replaces it by an instance of the generator's `Sampling`.
    """
    return field(factory=dict, metadata={"doc": doc, "sampler": True})


def is_sampler_options(option: Any) -> bool:
    """Whether `sampler_options` made this attrs field."""
    return bool(option.metadata.get("sampler"))


def specs_in(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Spec]]:
    """Yields the components that a configuration holds directly, with their paths of keys; not those within them."""
    if isinstance(value, Spec):
        yield keys, value
    elif attrs.has(type(value)):
        for option in attrs.fields(type(value)):
            yield from specs_in(getattr(value, option.name), (*keys, option.name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from specs_in(item, (*keys, str(name)))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from specs_in(item, (*keys, str(number)))


def all_specs(value: Any) -> Iterator[Spec]:
    """Yields the components that a configuration holds, each before those within it."""
    for _, spec in specs_in(value):
        yield spec
        yield from all_specs(spec.config)


def neutral_options(config: Any) -> set[str]:
    """The names of a configuration's options that do not affect a result (`metadata={"result": False}`)."""
    return {option.name for option in attrs.fields(type(config)) if not option.metadata.get("result", True)}


def shaping_options(config: Any) -> dict[str, Any]:
    """A configuration's options, without those that do not affect a result, its own and those of tables within it.

    Of components within it, all options count.
    """
    return {name: value for name, value in plain_options(config).items() if name not in neutral_options(config)}


def plain_options(config: Any) -> dict[str, Any]:
    """A configuration's options for TOML, without those of tables within it that do not affect a result."""
    options = plain(config)
    for name in options:
        value = getattr(config, name)
        if attrs.has(type(value)) and not isinstance(value, Spec):
            options[name] = shaping_options(value)
    return options


def plain(value: Any) -> Any:
    """Converts a configuration to values that TOML can hold; None is omitted."""
    if isinstance(value, Spec):
        return value.table()
    if attrs.has(type(value)):
        pairs = ((a.name, getattr(value, a.name)) for a in attrs.fields(type(value)))
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
