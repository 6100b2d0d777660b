"""Shared by the importers of published flow transformers, for `flow_transformer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.values.latents import LatentSpace
from robustok_core.values.terminal import echo
from robustok_hub.published_names import NameRules, count_numbered, heads_field, load_generator, to_published

#: Weights that tell the format, and their numbers of dimensions.
TELLING = {
    "pos_embed": 3,
    "t_embedder.mlp.0.weight": 2,
    "y_embedder.embedding_table.weight": 2,
    "blocks.0.adaLN_modulation.1.weight": 2,
    "final_layer.linear.weight": 2,
}
#: Heads by published width; they do not follow from the shapes of the weights.
_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
#: Our buffers that published files lack: they store the statistics of the latents elsewhere.
_STATISTICS = ("latent_mean", "latent_std")
_all_positive: Any = validators.deep_iterable(validators.gt(0.0))


@frozen(kw_only=True)
class FlowImporterConfig:
    """Options that do not follow from the weights."""

    num_heads: int | None = heads_field("those of the published sizes")
    mean: list[float] | None = field(
        default=None,
        metadata={"doc": "mean of the latents it was trained on: [a] or one number per channel; left out: [0]"},
    )
    std: list[float] | None = field(
        default=None,
        validator=validators.optional(_all_positive),
        metadata={"doc": "standard deviation of these latents: [a] or one number per channel; left out: [1]"},
    )


@frozen(kw_only=True, eq=False)
class LatentStatistics:
    """Mean and standard deviation of a generator's training latents, one number or one per channel.

    Attributes:
        mean, std: the numbers.
        where: their source, for messages.
        report: their description in the importer's report.
    """

    mean: Sequence[float] | Tensor
    std: Sequence[float] | Tensor
    where: str
    report: str


def given_statistics(config: FlowImporterConfig) -> LatentStatistics:
    """The statistics in an importer's options; by default they leave latents unchanged."""
    descriptions = (
        f"{name} {default} (not given)" if given is None else f"{name} {given}"
        for name, given, default in (("mean", config.mean, 0), ("deviation", config.std, 1))
    )
    return LatentStatistics(
        mean=[0.0] if config.mean is None else config.mean,
        std=[1.0] if config.std is None else config.std,
        where="the importer's mean and std",
        report=", ".join(descriptions),
    )


def names(depth: int) -> NameRules:
    """The rules from published names to ours."""
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
    """The size of a published model; `hidden` names a weight with as many columns as the MLP's hidden width.

    Raises:
        RobustokError: the number of heads is not known.
    """
    width = published["pos_embed"].shape[2]
    heads = num_heads or _HEADS.get(width)
    if heads is None:
        raise RobustokError(
            f"the number of heads of a model of width {width} does not follow from its weights",
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
    """Builds the generator of a recipe table with published weights; returns its full table and the generator.

    Args:
        registry: builds the generator. table: the recipe table, with `use`.
        published: weights by published name, in our shapes.
        grid: the grid of the tokens, or None.
        statistics: the statistics of the latents.
        where: the file, for messages.

    Raises:
        RobustokError: the weights or the statistics do not fit.
    """
    channels, num_tokens = len(published["final_layer.linear.weight"]), published["pos_embed"].shape[1]
    space = LatentSpace(kind="continuous", num_tokens=num_tokens, width=channels, grid=grid)
    rules = names(count_numbered(published, "blocks."))
    weights = {**published, **dict.fromkeys(_STATISTICS, torch.zeros(channels))}
    num_classes = len(published["y_embedder.embedding_table.weight"]) - 1
    full_table, generator = load_generator(registry, table, weights, rules, where, space=space, num_classes=num_classes)
    _observe(generator, statistics, channels)
    return full_table, generator


def _observe(generator: Any, statistics: LatentStatistics, channels: int) -> None:
    mean, std = (_per_channel(values, channels) for values in (statistics.mean, statistics.std))
    try:
        if (std == 0.0).any():  # 0 means a constant channel when measured; a file must not have one
            raise ValueError("deviations must be positive")
        generator.observe(mean, std)
    except ValueError as error:
        raise RobustokError(f"these are not statistics of latents: {error}", where=statistics.where) from error


def _per_channel(values: Sequence[float] | Tensor, channels: int) -> Tensor:
    """Expands one number to (channels,); any other count of numbers stays. float32."""
    tensor = torch.as_tensor(values, dtype=torch.float32).flatten()
    return tensor.expand(channels) if len(tensor) == 1 else tensor


def export_flow(component: nn.Module, what: str, marks: Mapping[str, bool]) -> dict[str, Tensor]:
    """The weights of a `flow_transformer` under published names, without the statistics of its latents.

    If it has statistics, prints to standard error the import options that restore them.

    Args:
        component: the generator.
        what: the name of the format.
        marks: our weight names that a generator of this format must have (True) or must not have (False).

    Raises:
        RobustokError: the format cannot hold this generator.
    """
    weights = component.state_dict()
    marks = {"head.to_velocity.weight": True, "blocks.0.attn.q_norm.weight": False, **marks}
    if any((name in weights) != required for name, required in marks.items()):
        raise RobustokError(f"the published {what} format holds only flow_transformer generators of its own style")
    mean, std = (weights[name] for name in _STATISTICS)
    if mean.any() or (std != 1.0).any():
        echo(
            f"note: the published {what} format does not hold the statistics of the latents; import it with "
            f"--set 'mean={_option(mean)}' --set 'std={_option(std)}'",
            err=True,
        )
    rules = names(count_numbered(weights, "blocks."))
    return {to_published(name, rules): value for name, value in weights.items() if name not in _STATISTICS}


def _option(values: Tensor) -> list[float]:
    """The value of the importer's option for values (D,)."""
    numbers: list[float] = values.tolist()
    return numbers[:1] if len(set(numbers)) == 1 else numbers
