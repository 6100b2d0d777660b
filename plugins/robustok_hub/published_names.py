"""Mapping of published names to ours and back, and strict loading."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from attrs import field, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.component import Builder
from robustok_core.runs.weights import check_weights
from robustok_core.values.latents import LatentSpace
from robustok_core.values.wording import short_name, some_names
from robustok_hub.known_files import FORMATS, better_importers, fits
from robustok_toolkit.weight_files import read_weights

#: (published prefix, our prefix) of names; the first match counts.
NameRules = Sequence[tuple[str, str]]
#: Keys that `Importer.opponents` reads.
_DISCRIMINATOR = ("discriminator", "optimizer_disc", "opt_disc")
#: The prefix of running averages in latent diffusion's checkpoints.
_AVERAGES = "model_ema."


def to_ours(name: str, rules: NameRules) -> str:
    """Our name for a published one."""
    return next((ours + name[len(theirs) :] for theirs, ours in rules if name.startswith(theirs)), name)


def to_published(name: str, rules: NameRules) -> str:
    """The published name for one of ours."""
    return next((theirs + name[len(ours) :] for theirs, ours in rules if name.startswith(ours)), name)


def read_published(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a published file, and the start of the importer's report: what was read and what was not.

    Raises:
        RobustokError: as `read_weights`, or some weights are quantized to floats of 8 bits or fewer, which do not mean
            their values and which torch does not compare.
    """
    file = read_weights(path)
    short = [name for name, weight in file.weights.items() if weight.is_floating_point() and weight.element_size() < 2]
    if short:
        named = some_names([f"{name} ({str(file.weights[name].dtype).removeprefix('torch.')})" for name in short])
        what = f"{len(short):,} of {len(file.weights):,} weights are quantized: {named}"
        raise RobustokError(what, where=str(path), hint="use the file with weights in float32, bfloat16 or float16")
    report = {"weights": file.key or "the whole file"}
    others = [name for name in file.others if name not in _DISCRIMINATOR]
    if others:
        report["not read"] = ", ".join(others)
    if len(others) < len(file.others):
        report["discriminator"] = "not read: its network is not one that `adversarial` knows"  # unless it is
    return file.weights, report


def drop_parts(weights: dict[str, Tensor], report: dict[str, str], parts: Mapping[str, str]) -> None:
    """Removes weights whose names start with the prefixes in `parts`, and reports what they are."""
    for prefix, what in parts.items():
        names = [name for name in weights if name.startswith(prefix)]
        for name in names:
            del weights[name]
        if names:
            report[f"{prefix}*"] = f"dropped {len(names)} weights: {what}"


def read_averaged(weights: dict[str, Tensor], report: dict[str, str]) -> None:
    """Replaces weights by their running averages where the file has them beside the weights, as "model_ema.NAME".

    The dots of NAME are removed there, as latent diffusion's LitEma does. Averages without a weight stay: they are
    unexpected.
    """
    averages = {name: weights.pop(name) for name in list(weights) if name.startswith(_AVERAGES)}
    for counter in ("decay", "num_updates"):
        averages.pop(_AVERAGES + counter, None)
    if not averages:
        return
    taken = 0
    for name in weights:
        average = averages.pop(_AVERAGES + name.replace(".", ""), None)
        if average is not None:
            weights[name] = average
            taken += 1
    weights |= averages
    report["weights"] += f", with the running averages (model_ema) of {taken} of its {len(weights)} weights"


def require(
    weights: Mapping[str, Tensor],
    dims: Mapping[str, int | None],
    importer: str,
    where: str,
    optional: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Checks that a file has the weights that identify its format.

    Args:
        weights: the file's.
        dims: the number of dimensions of each required weight by its name; None for any.
        importer: the importer's name, or what is read. where: the file.
        optional: like `dims`, for weights that may be missing.

    Raises:
        RobustokError: names weights that are missing, together with those that there are, or that have another shape;
            or the importer whose files have these and more.
    """
    what, better = FORMATS.get(importer, importer), better_importers(importer, weights)
    named = some_names([short_name(name) for name in weights], most=5)
    hint = f"its {len(weights):,} weights are called {named}" if weights else "it has no other weights"
    if better:
        hint = f"it looks like a file of the importer {' or '.join(better)}"
    missing = [name for name in dims if name not in weights]
    if missing:
        raise RobustokError(f"this is not {what}: it lacks {some_names(missing)}", where=where, hint=hint)
    if better and fits(importer, weights):
        raise RobustokError(f"this is not {what}, whose weights it has among others", where=where, hint=hint)
    held = {name: (weights[name], count) for name, count in {**optional, **dims}.items() if name in weights}
    wrong = [
        f"{name} {tuple(weight.shape)} {str(weight.dtype).removeprefix('torch.')}"
        for name, (weight, count) in held.items()
        if count not in (None, weight.ndim) or weight.numel() == 0 or weight.is_complex()
    ]
    if wrong:
        raise RobustokError(f"this is not {what}: of another shape or type are {some_names(wrong)}", where=where)


def heads_field(otherwise: str) -> Any:
    """The importer's option num_heads, which does not follow from the weights; `otherwise` describes the default."""
    return field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": f"attention heads; left out: {otherwise}"},
    )


def heads_by_width(width: int) -> int:
    """The number of heads where nothing says it: one for every 64 of the width, as in published models.

    The report of the import says which number was chosen.
    """
    return max(1, width // 64)


def l2_normalise_field() -> Any:
    """The importer's option l2_normalise, which does not follow from the weights."""
    return field(default=True, metadata={"doc": "the codebook is on the unit sphere, as in all released files"})


def vq_table(weights: Mapping[str, Tensor], *, l2_normalise: bool) -> dict[str, Any]:
    """The recipe table of the `vq` whose codebook (K, D) is among the weights, by our names."""
    codebook_size, width = weights["quantizer.embedding"].shape
    return {"use": "vq", "codebook_size": codebook_size, "width": width, "l2_normalise": l2_normalise}


def count_numbered(weights: Mapping[str, Tensor], prefix: str) -> int:
    """The number of entries after a prefix, numbered without gaps: 12 for "blocks." with blocks.0 to blocks.11."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    numbers = {match[1] for match in map(pattern.match, weights) if match}
    return next(count for count in itertools.count() if str(count) not in numbers)


def code_space(num_tokens: int, width: int, codebook_size: int, *, on_grid: bool = True) -> LatentSpace:
    """The latent space of a published generator; its grid is square if `on_grid` and the tokens fill a square."""
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
    """Builds a generator with published weights; for arguments, result and errors see `build_with`."""
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
    brings: tuple[str, ...] = (),
) -> tuple[dict[str, Any], nn.Module]:
    """Builds a recipe table's component with these weights; returns its full table and the component, in eval mode.

    Args:
        registry: builds the component. table: the recipe table, with `use`. weights: by our names.
        rules: map names to published ones in messages.
        where: the file, for messages.
        kind: "tokenizer" or "generator".
        args: constructor arguments besides the table: a generator's latent space and number of classes.
        brings: prefixes of our names whose weights the component has when it is built, such as a frozen network's.

    Raises:
        RobustokError: the table describes no component, or weights are missing, unexpected, of the wrong shape or
            type, or not finite; names a few as published.
    """
    spec = registry.spec(kind, table)
    with nullcontext() if brings else torch.device("meta"):
        component = spec.build(*args)
    weights = {**{name: value for name, value in component.state_dict().items() if name.startswith(brings)}, **weights}
    try:
        check_weights(component, weights, where, lambda name: to_published(name, rules))
    except RunError as error:
        raise RobustokError(error.what, where=where, hint=error.hint) from error
    if not brings:
        component = component.to_empty(device="cpu")
    component.load_state_dict(dict(weights))  # casts half precision to float32
    return spec.table(), component.eval()
