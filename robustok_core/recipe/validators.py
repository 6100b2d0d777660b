"""Validators of options, beyond those of attrs. That numbers are finite is checked before them: see `limits`."""

from __future__ import annotations

from typing import Any

from attrs import validators

#: From 0 to 1, both included: a share of a whole.
unit_interval = validators.and_(validators.ge(0.0), validators.le(1.0))
#: From 0 up to, but not including, 1: for example a dropout rate.
below_one = validators.and_(validators.ge(0.0), validators.lt(1.0))


def in_range(least: float, largest: float) -> Any:
    """An attrs validator of a range, both ends included."""
    return validators.and_(validators.ge(least), validators.le(largest))


# Limits of sizes. They are far above what anyone uses, and low enough that a component can be sketched: a depth of a
# million would fill the memory with modules before anything could say that it is too large.
LARGEST_SIDE = 8192
LARGEST_CODEBOOK = 2**24
#: The side of an image or a patch, in pixels.
side_range = in_range(1, LARGEST_SIDE)
#: Numbers per token, channels, tokens, heads.
width_range = in_range(1, 2**16)
#: Blocks, levels.
depth_range = in_range(1, 256)
#: A width relative to another.
ratio_range = validators.and_(validators.gt(0.0), validators.le(1000.0))
#: Codewords.
codebook_range = in_range(2, LARGEST_CODEBOOK)
#: Passes of a sampler, subsets of a metric.
rounds_range = in_range(1, 100_000)
#: Helper processes.
workers_range = in_range(0, 1000)
#: Passes over the training images; a part of one is possible.
epochs_range = validators.and_(validators.gt(0.0), validators.le(1e6))


def require_multiple(config: Any, name: str, of: str) -> None:
    """For `__attrs_post_init__`: checks that option `name` is a multiple of option `of`, both integers of at least 1.

    Raises:
        ValueError: if not; the message names both options and their values.
    """
    value, divisor = getattr(config, name), getattr(config, of)
    if value % divisor:
        raise ValueError(f"{name} {value} is not a multiple of {of} {divisor}")
