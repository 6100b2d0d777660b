"""The size of a transformer: a published preset, or explicit numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

from robustok_core.recipe.validators import require_multiple, width_range


@frozen(kw_only=True)
class Size:
    """Width, depth, heads, and the hidden width of the feed-forward layers."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int

    @property
    def head_width(self) -> int:
        """Width of each attention head."""
        return self.width // self.num_heads


def size_field(doc: str, valid: Any = width_range) -> Any:
    """An optional number of a size, with the validator of its range."""
    return field(default=None, validator=validators.optional(valid), metadata={"doc": f"{doc}; left out: the preset's"})


def size_of(config: Any, presets: Mapping[str, Size], mlp_width: int | None) -> Size:
    """The size that a configuration describes: its preset's, overridden by the numbers given.

    Args:
        config: has preset, width, depth, num_heads and mlp_width, each possibly None.
        presets: the published sizes.
        mlp_width: default hidden width for the configuration's width.

    Raises:
        ValueError: a number is missing, or num_heads does not divide the width.
    """
    preset = presets.get(config.preset)
    numbers = {}
    for name in ("width", "depth", "num_heads", "mlp_width"):
        given = getattr(config, name)
        if given is None and name == "mlp_width":
            given = mlp_width
        if given is None and preset is None:
            raise ValueError(f"give {name}, or a preset: {', '.join(presets)}")
        numbers[name] = getattr(preset, name) if given is None else given
    size = Size(**numbers)
    require_multiple(size, "width", "num_heads")
    return size
