"""From published names to ours and back, and strict loading."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.runs.weights import misfit
from robustok_core.values.latents import LatentSpace
from robustok_toolkit.weight_files import read_weights

#: (published beginning, our beginning) of names, the first that fits counts.
NameRules = Sequence[tuple[str, str]]


def to_ours(name: str, rules: NameRules) -> str:
    """Our name of a published one."""
    return next((ours + name[len(theirs) :] for theirs, ours in rules if name.startswith(theirs)), name)


def to_published(name: str, rules: NameRules) -> str:
    """The published name of one of ours."""
    return next((theirs + name[len(ours) :] for theirs, ours in rules if name.startswith(ours)), name)


def read_published(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a published file, and the beginning of the importer's report: what was read and what not."""
    file = read_weights(path)
    report = {"weights": file.place or "the whole file"}
    if file.others:
        report["not read"] = ", ".join(file.others)
    return file.weights, report


def require(weights: Mapping[str, Tensor], names: Sequence[str], what: str, where: str) -> None:
    """Refuses a file without the weights that tell what it is.

    Raises:
        RobustokError: naming those that it lacks.
    """
    lacking = [name for name in names if name not in weights]
    if lacking:
        raise RobustokError(f"this is no {what}: it lacks {', '.join(lacking[:3])}", where=where)


def heads_field(otherwise: str) -> Any:
    """The importer's option num_heads, which weights do not tell; `otherwise` says what holds where it is left out."""
    return field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": f"attention heads; left out: {otherwise}"},
    )


def l2_normalise_field() -> Any:
    """The importer's option l2_normalise, which weights do not tell."""
    return field(
        default=True, metadata={"doc": "whether its codebook lies on the unit sphere, as in all released files"}
    )


def vq_table(weights: Mapping[str, Tensor], *, l2_normalise: bool) -> dict[str, Any]:
    """The recipe table of the `vq` whose codebook (K, D) is among the weights, which have our names."""
    codebook_size, width = weights["quantizer.embedding"].shape
    return {"use": "vq", "codebook_size": codebook_size, "width": width, "l2_normalise": l2_normalise}


def count_numbered(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered entries follow a prefix: 12 for "blocks." with blocks.0 to blocks.11."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(found[1]) for found in map(pattern.match, weights) if found), default=-1)


def code_space(num_tokens: int, width: int, codebook_size: int, *, on_grid: bool = True) -> LatentSpace:
    """The latent space of a published generator, square where its tokens lie on a grid and fill a square."""
    side = math.isqrt(num_tokens)
    grid = (side, side) if on_grid and side * side == num_tokens else None
    return LatentSpace(kind="discrete", num_tokens=num_tokens, width=width, codebook_size=codebook_size, grid=grid)


def load_generator(
    registry: Builder,
    table: Mapping[str, Any],
    published: Mapping[str, Tensor],
    rules: NameRules,
    where: str,
    *,
    space: LatentSpace,
    num_classes: int,
) -> tuple[dict[str, Any], nn.Module]:
    """A generator of a latent space with published weights; arguments and what it raises: as of `build_with`."""
    weights = {to_ours(name, rules): value for name, value in published.items()}
    return build_with(registry, table, weights, rules, where, kind="generator", args=(space, num_classes))


def build_with(
    registry: Builder,
    table: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    rules: NameRules,
    where: str,
    *,
    kind: str = "tokenizer",
    args: Sequence[Any] = (),
) -> tuple[dict[str, Any], nn.Module]:
    """The component of a recipe table with these weights under our names, in eval mode, and its full table.

    Args:
        registry: where it is built. table: with `use`. weights: by our names. rules: for messages.
        where: the file, for messages.
        kind: "tokenizer" or "generator".
        args: what it is built with beyond its table: a generator's latent space and number of classes.

    Raises:
        RobustokError: naming, as published, a few of the weights that are missing, left over or of another shape.
    """
    spec = registry.spec(kind, table)
    with torch.device("meta"):
        component = spec.build(*args)
    component = component.to_empty(device="cpu")
    wrong = misfit(component.state_dict(), weights, lambda name: to_published(name, rules))
    if wrong:
        raise RobustokError(f"the weights do not fit: {wrong}", where=where)
    component.load_state_dict(dict(weights))  # casts half precision up
    return spec.table(), component.eval()
