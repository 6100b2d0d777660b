"""What the published files of flow transformers have in common, for `flow_transformer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.latents import LatentSpace
from robustok_core.registry import Registry
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


@frozen(kw_only=True)
class FlowImporterConfig:
    """What the weights do not tell."""

    num_heads: int | None = heads_field("those of the published sizes")
    mean: list[float] = field(
        factory=lambda: [0.0],
        validator=validators.min_len(1),
        metadata={"doc": "mean of the latents that it was trained on: one number, or one for each channel"},
    )
    std: list[float] = field(
        factory=lambda: [1.0],
        validator=[validators.min_len(1), validators.deep_iterable(validators.gt(0.0))],
        metadata={"doc": "deviation of the latents that it was trained on: one number, or one for each channel"},
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
    registry: Registry,
    table: Mapping[str, Any],
    published: Mapping[str, Tensor],
    *,
    grid: tuple[int, int] | None,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    where: str,
) -> tuple[dict[str, Any], nn.Module]:
    """The generator of a recipe table with published weights, and its full table.

    Args:
        registry: where it is built. table: with `use`.
        published: weights by their published names, in our shapes.
        grid: of the tokens, or None.
        mean, std: statistics of the latents, one number or one for each channel.
        where: the file, for messages.

    Raises:
        RobustokError: the weights do not fit, or the statistics.
    """
    channels, num_tokens = len(published["final_layer.linear.weight"]), published["pos_embed"].shape[1]
    space = LatentSpace(kind="continuous", num_tokens=num_tokens, width=channels, grid=grid)
    rules = names(count_numbered(published, "blocks."))
    statistics = [per_channel(values, channels, where) for values in (mean, std)]
    weights = {**published, **dict(zip(_STATISTICS, statistics, strict=True))}
    num_classes = len(published["y_embedder.embedding_table.weight"]) - 1
    return load_generator(registry, table, weights, rules, where, space=space, num_classes=num_classes)


def per_channel(values: Sequence[float] | Tensor, channels: int, where: str) -> Tensor:
    """(channels,) float32 of one number or one for each channel.

    Raises:
        RobustokError: where there is another number of them.
    """
    found = torch.as_tensor(values, dtype=torch.float32).flatten()
    if len(found) not in (1, channels):
        raise RobustokError(f"{len(found)} statistics are given for {channels} channels", where=where)
    return found.expand(channels).clone()


def export_flow(component: nn.Module, what: str, marks: Mapping[str, bool]) -> dict[str, Tensor]:
    """The weights of a `flow_transformer` under published names, less the statistics of its latents.

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
    rules = names(count_numbered(weights, "blocks."))
    return {to_published(name, rules): value for name, value in weights.items() if name not in _STATISTICS}
