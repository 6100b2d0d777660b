"""What the published files of flow transformers have in common, for `flow_transformer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.values.latents import LatentSpace
from robustok_hub.published_names import NameRules, count_numbered, heads_field, load_generator, to_published

TELLING = (
    "pos_embed",
    "t_embedder.mlp.0.weight",
    "y_embedder.embedding_table.weight",
    "blocks.0.adaLN_modulation.1.weight",
    "final_layer.linear.weight",
)
#: Heads of the published widths; the shapes of the weights do not tell them.
_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
#: Ours that published files do not hold: they keep the statistics of the latents elsewhere.
_STATISTICS = ("latent_mean", "latent_std")
_all_positive: Any = validators.deep_iterable(validators.gt(0.0))


@frozen(kw_only=True)
class FlowImporterConfig:
    """What the weights do not tell."""

    num_heads: int | None = heads_field("those of the published sizes")
    mean: list[float] | None = field(
        default=None,
        metadata={"doc": "mean of the latents it was trained on: [a] or one number for each channel; left out: [0]"},
    )
    std: list[float] | None = field(
        default=None,
        validator=validators.optional(_all_positive),
        metadata={"doc": "deviation of these latents: [a] or one number for each channel; left out: [1]"},
    )


@frozen(kw_only=True, eq=False)
class LatentStatistics:
    """Mean and deviation of the latents that a generator was trained on, one number or one for each channel.

    Attributes:
        mean, std: the numbers.
        where: what gave them, for messages.
        said: what the importer's report says of them.
    """

    mean: Sequence[float] | Tensor
    std: Sequence[float] | Tensor
    where: str
    said: str


def given_statistics(config: FlowImporterConfig) -> LatentStatistics:
    """The statistics that an importer's options give; where they give none, latents are taken as they are."""
    said = (
        f"{name} {assumed} (not given)" if given is None else f"{name} {given}"
        for name, given, assumed in (("mean", config.mean, 0), ("deviation", config.std, 1))
    )
    return LatentStatistics(
        mean=[0.0] if config.mean is None else config.mean,
        std=[1.0] if config.std is None else config.std,
        where="the importer's mean and std",
        said=", ".join(said),
    )


def names(depth: int) -> NameRules:
    """From published names to ours."""
    return [
        ("pos_embed", "positions"),
        ("x_embedder.", "token_embedding."),
        ("t_embedder.", "time_embedding."),
        ("y_embedder.embedding_table.", "label_embedding."),
        *((f"blocks.{i}.adaLN_modulation.1.", f"blocks.{i}.modulation.") for i in range(depth)),
        ("final_layer.adaLN_modulation.1.", "head.modulation."),
        ("final_layer.linear.", "head.to_velocity."),
        ("final_layer.norm_final.", "head.norm."),
    ]


def size_table(published: Mapping[str, Tensor], num_heads: int | None, hidden: str, where: str) -> dict[str, Any]:
    """The size of a published model; `hidden` names a weight with as many columns as the MLPs are wide.

    Raises:
        RobustokError: where the number of heads is not known.
    """
    width = published["pos_embed"].shape[2]
    heads = num_heads or _HEADS.get(width)
    if heads is None:
        raise RobustokError(
            f"the weights do not tell how many heads a model of width {width} has",
            where=where,
            hint="set the importer's num_heads",
        )
    return {
        "use": "flow_transformer",
        "width": width,
        "depth": count_numbered(published, "blocks."),
        "num_heads": heads,
        "mlp_width": published[hidden].shape[1],
    }


def build_flow(
    registry: Builder,
    table: Mapping[str, Any],
    published: Mapping[str, Tensor],
    *,
    grid: tuple[int, int] | None,
    statistics: LatentStatistics,
    where: str,
) -> tuple[dict[str, Any], nn.Module]:
    """The generator of a recipe table with published weights, and its full table.

    Args:
        registry: where it is built. table: with `use`.
        published: weights by their published names, in our shapes.
        grid: of the tokens, or None.
        statistics: of the latents.
        where: the file, for messages.

    Raises:
        RobustokError: the weights do not fit, or the statistics.
    """
    channels, num_tokens = len(published["final_layer.linear.weight"]), published["pos_embed"].shape[1]
    space = LatentSpace(kind="continuous", num_tokens=num_tokens, width=channels, grid=grid)
    rules = names(count_numbered(published, "blocks."))
    weights = {**published, **dict.fromkeys(_STATISTICS, torch.empty(channels))}
    num_classes = len(published["y_embedder.embedding_table.weight"]) - 1
    own, generator = load_generator(registry, table, weights, rules, where, space=space, num_classes=num_classes)
    _observe(generator, statistics, channels)
    return own, generator


def _observe(generator: Any, statistics: LatentStatistics, channels: int) -> None:
    mean, std = (_per_channel(values, channels) for values in (statistics.mean, statistics.std))
    try:
        if (std == 0.0).any():  # where one observes latents it is a channel that never changes; a file has no such
            raise ValueError("deviations must be positive")
        generator.observe(mean, std)
    except ValueError as error:
        raise RobustokError(f"these are no statistics of latents: {error}", where=statistics.where) from error


def _per_channel(values: Sequence[float] | Tensor, channels: int) -> Tensor:
    """float32 (channels,) of one number, and as many as there are of another number of them."""
    found = torch.as_tensor(values, dtype=torch.float32).flatten()
    return found.expand(channels) if len(found) == 1 else found


def export_flow(component: nn.Module, what: str, marks: Mapping[str, bool]) -> dict[str, Tensor]:
    """The weights of a `flow_transformer` under published names, less the statistics of its latents.

    Says on standard error which options give these statistics back on import, where it has some.

    Args:
        component: the generator.
        what: the name of the format.
        marks: names of ours that a generator of this format has (True) or has not.

    Raises:
        RobustokError: where the format has no place for it.
    """
    weights = component.state_dict()
    marks = {"head.to_velocity.weight": True, "blocks.0.attn.q_norm.weight": False, **marks}
    if any((name in weights) != there for name, there in marks.items()):
        raise RobustokError(f"the published {what} format holds flow_transformer generators of its own style only")
    mean, std = (weights[name] for name in _STATISTICS)
    if mean.any() or (std != 1.0).any():
        click.echo(
            f"note: the published {what} format does not hold the statistics of the latents; import it with "
            f"--set 'mean={_option(mean)}' --set 'std={_option(std)}'",
            err=True,
        )
    rules = names(count_numbered(weights, "blocks."))
    return {to_published(name, rules): value for name, value in weights.items() if name not in _STATISTICS}


def _option(values: Tensor) -> list[float]:
    """The importer's option that gives values (D,)."""
    numbers: list[float] = values.tolist()
    return numbers[:1] if len(set(numbers)) == 1 else numbers
