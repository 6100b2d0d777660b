"""Shared by the importers of published diffusion transformers, for `flow_transformer` and `dit`."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

import torch
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.recipe.validators import width_range
from robustok_core.values.latents import LatentSpace
from robustok_core.values.terminal import echo
from robustok_hub.published_config import PublishedConfig
from robustok_hub.published_names import NameRules, count_numbered, heads_field, load_generator, to_published

PATCHES = "x_embedder.proj.weight"
_TOKENS = "x_embedder.weight"
IMAGES = {PATCHES: 4, "x_embedder.proj.bias": 1}
_GATE = "blocks.0.mlp.w12.weight"
_Q_NORM = "blocks.0.attn.q_norm.weight"
#: Paths by their names in published configurations; SiT's code calls the cosine one GVP.
_PATHS = {"linear": "linear", "Linear": "linear", "cosine": "cosine", "GVP": "cosine"}
_MODULATION = "blocks.0.adaLN_modulation.1.weight"
#: Weights that tell a transformer, and their numbers of dimensions; those of its tokens or patches are `IMAGES`, too.
TELLING = {
    "pos_embed": 3,
    "t_embedder.mlp.0.weight": 2,
    "y_embedder.embedding_table.weight": 2,
    _MODULATION: 2,
    "final_layer.linear.weight": 2,
}
#: What norms of queries and keys add to the variance; it does not follow from the weights.
QK_NORM_EPS = {"layer": 1e-5, "rms": 1e-6}
#: Heads by published width; in general they do not follow from the shapes of the weights.
_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
#: Our buffers that published files lack: they store the statistics of the latents elsewhere.
_STATISTICS = ("latent_mean", "latent_std")
#: Channels of an image's latent that published guidance is for.
_GUIDED = 3
_all_positive: Any = validators.deep_iterable(validators.gt(0.0))


@frozen(kw_only=True)
class NetworkImporterConfig:
    """Options that do not follow from the weights."""

    num_heads: int | None = heads_field(
        "as config.json beside the weights says, or as the weights show, or those of the published sizes"
    )
    mean: list[float] | None = field(
        default=None,
        metadata={"doc": "mean of the latents it was trained on: [a] or one number per channel; left out: [0]"},
    )
    std: list[float] | None = field(
        default=None,
        validator=validators.optional(_all_positive),
        metadata={
            "doc": "standard deviation of these latents: [a] or one number per channel; left out: [1]. "
            "SiT and DiT of images: [5.48998] for latents that `diffusers_vae` has not multiplied by 0.18215"
        },
    )
    guided_channels: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={
            "doc": "number of first channels of a latent to guide; left out: 3 for images, as the published scales are "
            "for, and all for one-dimensional tokens"
        },
    )


@frozen(kw_only=True)
class FlowImporterConfig(NetworkImporterConfig):
    """Options that do not follow from the weights."""

    path: Literal["linear", "cosine"] | None = field(
        default=None,
        metadata={"doc": "path of its training; left out: path_type in config.json beside the weights, or linear"},
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


def refuse_both(config: NetworkImporterConfig, file: str | None) -> None:
    """Raises ValueError if the statistics of the latents are given by a file and by options."""
    if file is not None and (config.mean, config.std) != (None, None):
        raise ValueError("statistics already gives mean and std: set either statistics or mean and std")


def given_statistics(config: NetworkImporterConfig) -> LatentStatistics:
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


def names(depth: int, *, images: bool) -> NameRules:
    """The rules from published names to ours."""
    return [
        ("pos_embed", "positions"),
        ("x_embedder.proj." if images else "x_embedder.", "token_embedding."),
        ("t_embedder.", "time_embedding."),
        ("y_embedder.embedding_table.", "label_embedding."),
        *((f"blocks.{i}.adaLN_modulation.1.", f"blocks.{i}.modulation.") for i in range(depth)),
        ("final_layer.adaLN_modulation.1.", "head.modulation."),
        ("final_layer.linear.", "head.to_velocity."),
        ("final_layer.norm_final.", "head.norm."),
    ]


def network_table(
    published: Mapping[str, Tensor], options: NetworkImporterConfig, config: PublishedConfig, where: str
) -> dict[str, Any]:
    """The sizes in a recipe table.

    Args:
        published: weights by published name. options: the importer's.
        config: the configuration beside the weights. where: the file, for messages.

    Raises:
        RobustokError: the number of heads is not known, or the configuration contradicts the weights.
    """
    width, depth = published["pos_embed"].shape[2], count_numbered(published, "blocks.")
    config.must_agree({"hidden_size": width, "depth": depth, **_other_sizes(published, config)})
    heads = options.num_heads or config.get("num_heads", int) or _heads(published, width)
    if heads is None:
        raise RobustokError(
            f"the number of heads of a model of width {width} does not follow from its weights",
            where=where,
            hint="set the importer's num_heads",
        )
    table = {"width": width, "depth": depth, "num_heads": heads}
    hidden = published["blocks.0.mlp.w3.weight" if _GATE in published else "blocks.0.mlp.fc2.weight"]
    table["mlp_width"] = hidden.shape[1]
    if PATCHES in published:
        table["patch_size"] = published[PATCHES].shape[2]
        table["guided_channels"] = options.guided_channels or min(_GUIDED, published[PATCHES].shape[1])
    elif options.guided_channels is not None:
        table["guided_channels"] = options.guided_channels
    return table


def _other_sizes(published: Mapping[str, Tensor], config: PublishedConfig) -> dict[str, int]:
    """What else the configuration of a SiT, a DiT or a LightningDiT may say and the weights show, by its names.

    The table of classes has a row for "no class", unless training dropped none.
    """
    patches = published.get(PATCHES)
    channels = published[_TOKENS if patches is None else PATCHES].shape[1]
    normed, classes = _Q_NORM in published, len(published["y_embedder.embedding_table.weight"])
    sizes = {"in_channels": channels, "in_chans": channels, "qk_norm": normed, "use_qknorm": normed}
    style = style_table(published)
    sizes |= {"use_swiglu": style["mlp"] == "swiglu", "use_rmsnorm": style["norm"] == "rms", "use_rope": style["rope"]}
    if config.values.get("num_classes") != classes:
        sizes["num_classes"] = classes - 1
    if (heads := _shown_heads(published)) is not None:
        sizes["num_heads"] = heads
    return sizes | ({} if patches is None else {"patch_size": patches.shape[2]})


def _heads(published: Mapping[str, Tensor], width: int) -> int | None:
    """From the width of a head, or from the width of a published size."""
    return _shown_heads(published) or _HEADS.get(width)


def _shown_heads(published: Mapping[str, Tensor]) -> int | None:
    """From the width of a head, if a norm or the rotary positions show it."""
    width = published["pos_embed"].shape[2]
    for name in (_Q_NORM, "feat_rope.freqs_cos"):
        if name in published:
            return max(1, width // max(1, published[name].shape[-1]))
    return None


def style_table(published: Mapping[str, Tensor]) -> dict[str, Any]:
    """Which norms, MLPs, positions and modulations a `flow_transformer` has, in a recipe table."""
    return {
        "norm": "rms" if "blocks.0.norm1.weight" in published else "layer",
        "mlp": "swiglu" if _GATE in published else "gelu_tanh",
        "rope": "feat_rope.freqs_cos" in published,
        "shift": len(published[_MODULATION]) != 4 * published[_MODULATION].shape[1],
    }


def extras_table(published: Mapping[str, Tensor], norm: Literal["layer", "rms"] = "layer") -> dict[str, Any]:
    """What a `flow_transformer` may have in addition, in a recipe table; norms of queries and keys are as published."""
    doubled = len(published["final_layer.linear.weight"]) == 2 * _numbers_per_token(published)
    if _Q_NORM not in published:
        return {"learn_sigma": doubled, "qk_norm": False}
    return {"learn_sigma": doubled, "qk_norm": True, "qk_norm_eps": QK_NORM_EPS[norm]}


def _numbers_per_token(published: Mapping[str, Tensor]) -> int:
    """Of the transformer's tokens."""
    return published[PATCHES][0].numel() if PATCHES in published else published[_TOKENS].shape[1]


def path_of(options: FlowImporterConfig, config: PublishedConfig, report: dict[str, str]) -> str:
    """The path of a flow's training; reports why.

    Raises:
        RobustokError: path_type in the configuration is no text, or the path VP, which no `flow_transformer` has.
    """
    held = config.get("path_type", str)
    if held == "VP" and options.path is None:
        hint = "the importer's option path sets another one"
        raise RobustokError("path_type VP is not supported: linear and cosine are", where=str(config.file), hint=hint)
    reasons = {"the importer's option": options.path, f"path_type in {config.file.name}": _PATHS.get(held or "")}
    reason, path = next(((reason, path) for reason, path in reasons.items() if path is not None), (None, "linear"))
    says = f", for {config.file.name} says {held!r}" if held else ": check the configuration beside the weights"
    report["path"] = f'assumed to be "{path}"{says}' if reason is None else f'"{path}": {reason}'
    return path


def build_network(
    registry: Builder,
    table: Mapping[str, Any],
    published: Mapping[str, Tensor],
    *,
    statistics: LatentStatistics,
    where: str,
) -> tuple[dict[str, Any], nn.Module]:
    """Builds the generator of a recipe table with published weights; returns its full table and the generator.

    Args:
        registry: builds the generator. table: the recipe table, with `use`.
        published: weights by published name; patches make a square grid, tokens have none.
        statistics: the statistics of the latents.
        where: the file, for messages.

    Raises:
        RobustokError: the weights or the statistics do not fit.
    """
    space = _space(published, where)
    weights = {**published, **dict.fromkeys(_STATISTICS, torch.zeros(space.width))}
    if PATCHES in weights:  # a convolution over patches
        weights[PATCHES] = rearrange(weights[PATCHES], "d c p q -> d (p q c)")
    rules = names(count_numbered(published, "blocks."), images=PATCHES in published)
    num_classes = len(published["y_embedder.embedding_table.weight"]) - 1
    full_table, generator = load_generator(registry, table, weights, rules, where, space=space, num_classes=num_classes)
    _observe(generator, statistics, space.width)
    return full_table, generator


def _space(published: Mapping[str, Tensor], where: str) -> LatentSpace:
    """The latent space of the weights."""
    num_tokens = published["pos_embed"].shape[1]
    if PATCHES not in published:
        return LatentSpace(kind="continuous", num_tokens=num_tokens, width=_numbers_per_token(published))
    side = math.isqrt(num_tokens)
    _, channels, rows, columns = published[PATCHES].shape
    if side * side != num_tokens or rows != columns:
        raise RobustokError("only square grids of square patches can be read", where=where)
    side *= rows
    return LatentSpace(kind="continuous", num_tokens=side * side, width=channels, grid=(side, side))


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


def export_network(
    component: nn.Module,
    what: str,
    use: str,
    holds: Mapping[str, Container[Any]],
    *,
    images: bool,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a generator under published names, without the statistics of its latents, and `Importer.noted`.

    Prints to standard error the import options that restore its statistics and a path other than the linear one.

    Args:
        component: the generator.
        what: the name of the format.
        use: the name of the generators that it holds.
        holds: their options with which it holds them.
        images: whether tokens are patches of a square grid.

    Raises:
        RobustokError: the format cannot hold this generator.
    """
    config = getattr(component, "config", None)
    if getattr(component, "name", None) != use or not _fits(config, holds):
        raise RobustokError(f"the published {what} format holds only {use} generators of its own style")
    weights = component.state_dict()
    mean, std = (weights.pop(name) for name in _STATISTICS)
    statistics = {"mean": _option(mean), "std": _option(std)} if mean.any() or (std != 1.0).any() else {}
    path = getattr(config, "path", "linear")
    noted = {**statistics, **({} if path == "linear" else {"path": path})}
    if noted:
        named = " ".join(f"--set '{name}={value}'" for name, value in noted.items())
        lost = {"the statistics of the latents": bool(statistics), "the path": "path" in noted}
        names_lost = " and ".join(name for name, is_lost in lost.items() if is_lost)
        echo(f"note: the published {what} format does not hold {names_lost}; import it with {named}", err=True)
    if images:
        weights["token_embedding.weight"] = _convolution(weights["token_embedding.weight"], component, what)
    rules = names(count_numbered(weights, "blocks."), images=images)
    return {to_published(name, rules): value for name, value in weights.items()}, noted


def _fits(config: Any, holds: Mapping[str, Container[Any]]) -> bool:
    if not all(getattr(config, name) in values for name, values in holds.items()):
        return False
    qk_norm = getattr(config, "qk_norm", False)
    return not qk_norm or config.qk_norm_eps == QK_NORM_EPS[config.norm]


def _convolution(linear: Tensor, generator: Any, what: str) -> Tensor:
    """The convolution over patches that a linear layer is."""
    grid, side = generator.space.grid, generator.patch_size
    if grid is None or grid[0] != grid[1]:
        raise RobustokError(f"the published {what} format holds only generators for a square grid of tokens")
    return rearrange(linear, "d (p q c) -> d c p q", p=side, q=side).contiguous()


def _option(values: Tensor) -> list[float]:
    """The value of the importer's option for values (D,)."""
    numbers: list[float] = values.tolist()
    return numbers[:1] if len(set(numbers)) == 1 else numbers
