"""RAR: codes predicted first in random, finally in raster order (Yu et al. 2024, arXiv 2411.00776).

A "target-aware" embedding of the position to predict tells the model which code comes next in a permuted order.
All positions are conditioned on the class and on the number of positions before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.recipe.validators import below_one, depth_range, unit_interval, width_range
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_generators.autoregressive import Autoregressive
from robustok_generators.codes import codes_of
from robustok_generators.rar_block import Dropouts, RARBlock, RARHead
from robustok_generators.rar_decoding import RARDecoding
from robustok_generators.sizes import Size, size_field, size_of

PRESETS = {
    "B": Size(width=768, depth=24, num_heads=16, mlp_width=3072),
    "L": Size(width=1024, depth=24, num_heads=16, mlp_width=4096),
    "XL": Size(width=1280, depth=32, num_heads=16, mlp_width=5120),
    "XXL": Size(width=1408, depth=40, num_heads=16, mlp_width=6144),
}


@frozen(kw_only=True)
class RandomOrder:
    """Share of images trained in random order: all until `start`, then linearly fewer, none from `end` on."""

    start: float = field(
        default=0.5,
        validator=unit_interval,
        metadata={"doc": "share of training until which all orders are random"},
    )
    end: float = field(
        default=0.75,
        validator=unit_interval,
        metadata={"doc": "share of training from which all orders are raster"},
    )

    def __attrs_post_init__(self) -> None:
        if self.end < self.start:
            raise ValueError(f"random_order ends at {self.end:g}, before it starts to fall at {self.start:g}")

    def share(self, progress: float) -> float:
        """The share of images in random order at `progress`, a share of training."""
        if progress < self.start:
            return 1.0
        return 0.0 if progress >= self.end else (self.end - progress) / (self.end - self.start)


@frozen(kw_only=True)
class RARConfig:
    """Options of `rar`: a preset, or explicit sizes."""

    preset: Literal["B", "L", "XL", "XXL"] | None = field(default=None, metadata={"doc": "a published size"})
    width: int | None = size_field("numbers per token")
    depth: int | None = size_field("blocks", depth_range)
    num_heads: int | None = size_field("attention heads")
    mlp_width: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "hidden width of the MLPs; left out: the preset's, or 4 width"},
    )
    dropout: float = field(default=0.1, validator=below_one, metadata={"doc": "dropout after linear layers"})
    attention_dropout: float = field(default=0.1, validator=below_one, metadata={"doc": "dropout of attention weights"})
    label_dropout: float = field(
        default=0.1,
        validator=below_one,
        metadata={"doc": "share of training images whose label is dropped; 0: no guidance"},
    )
    random_order: RandomOrder = field(
        factory=RandomOrder, metadata={"doc": "table: when random orders change to raster order"}
    )
    position_rows: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "rows of the position tables; left out: as many as needed; released files: N + 1024"},
    )
    timestep_rows: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "rows of the timestep table; left out: as many as needed; released files: N + 100"},
    )

    def __attrs_post_init__(self) -> None:
        assert self.size  # raises if it is incomplete

    @property
    def size(self) -> Size:
        """The preset's size, overridden by the sizes given."""
        return size_of(self, PRESETS, None if self.width is None else 4 * self.width)


class RAR(Autoregressive):
    """Reads [cls, class, code, code, ...]; the class's position predicts the first code."""

    Config = RARConfig

    def __init__(self, config: RARConfig, space: LatentSpace, num_classes: int) -> None:
        super().__init__(space, num_classes, config.label_dropout)
        self.config = config
        size, self.length = config.size, space.num_tokens + 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = self._table(config.position_rows)
        self.target_aware_pos_embed = self._table(config.position_rows)
        self.timesteps_embeddings = self._table(config.timestep_rows)
        # Codes, an unused mask, the classes, and the null class.
        self.embeddings = nn.Embedding(self.codebook_size + 1 + num_classes + 1, size.width)
        dropouts = Dropouts(hidden=config.dropout, attention=config.attention_dropout)
        self.blocks = nn.ModuleList(
            RARBlock(size.width, size.num_heads, size.mlp_width, dropouts) for _ in range(size.depth)
        )
        self.head = RARHead(size.width, self.codebook_size)
        self._initialise()
        self.not_decayed = tuple(name for name, _ in self.named_parameters() if "embed" in name or name == "cls_token")

    def _table(self, rows: int | None) -> nn.Parameter:
        rows = self.length if rows is None else rows
        if rows < self.length:
            raise RobustokError(
                f"a table of {rows} rows is too short for {self.space.num_tokens} tokens, the cls token and the class",
                where="generator rar",
                hint="leave out position_rows and timestep_rows",
            )
        return nn.Parameter(torch.zeros(1, rows, self.config.size.width))

    def _initialise(self) -> None:
        """Initialises with truncated normals; modulations start at zero, so that each block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for block in [*self.blocks, self.head]:
            nn.init.zeros_(block.get_parameter("modulation.weight"))
        tables = [self.cls_token, self.pos_embed, self.target_aware_pos_embed, self.timesteps_embeddings]
        for table in [*tables, self.embeddings.weight]:
            nn.init.trunc_normal_(table, std=0.02)

    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """The mean cross-entropy of all codes, each image in raster or random order."""
        codes = codes_of(latents)
        orders = self.orders(draws, progress)
        logits = self(codes, self.with_dropped_labels(labels, draws), orders)[:, :-1]
        wanted = codes.gather(1, orders)
        return {"cross_entropy": F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten())}

    def orders(self, draws: Draws, progress: float) -> Tensor:
        """(B, N) int64: the order in which each image's codes are predicted, at `progress`, a share of training."""
        num_tokens = self.space.num_tokens
        raster = torch.arange(num_tokens, device=draws.indices.device).expand(len(draws.indices), -1)
        random = draws.child("order").bits(num_tokens).argsort(dim=1)
        permuted = draws.child("random_order").uniform() < self.config.random_order.share(progress)
        return torch.where(permuted[:, None], random, raster)

    def forward(self, codes: Tensor, labels: Tensor, orders: Tensor | None = None) -> Tensor:
        """Logits (B, N + 1, K): position i predicts the i-th code in order, the last position nothing.

        Args:
            codes: (B, N) int64, in raster order.
            labels: (B,) int64 in [0, num_classes]; num_classes is the null class.
            orders: (B, N) int64 permutations; None for raster order.
        """
        if orders is not None:
            codes = codes.gather(1, orders)
        condition = self.class_embedding(labels)[:, None]
        cls = self.cls_token.expand(len(codes), -1, -1)
        x = torch.cat([cls, condition, self.embeddings(codes)], dim=1) + self.positions(orders)
        conditions = self.conditions(condition, slice(0, self.length))
        for block in self.blocks:
            x = block(x, block.get_submodule("modulation")(conditions))
        return self.head(x[:, 1:], self.head.modulation(conditions[:, 1:]))

    def class_embedding(self, labels: Tensor) -> Tensor:
        """Embeddings (B, D) of labels (B,) in [0, num_classes]."""
        return self.embeddings(labels + self.codebook_size + 1)

    def conditions(self, class_embedding: Tensor, positions: slice) -> Tensor:
        """Inputs (B, n, D) of the modulations at some positions, from class embeddings (B, 1, D)."""
        return F.silu(class_embedding + self.timesteps_embeddings[:, positions])

    def positions(self, orders: Tensor | None = None) -> Tensor:
        """(B or 1, N + 2, D): the embedding of each input's position plus that of the position to predict."""
        own, target = self.pos_embed[0], self.target_aware_pos_embed[0]
        if orders is None:
            orders = torch.arange(self.space.num_tokens, device=own.device)[None]
        prefix = own[:2].expand(len(orders), -1, -1)
        aims = F.pad(target[orders + 2], (0, 0, 1, 1))  # neither the cls token nor the last code predicts anything
        return torch.cat([prefix, own[orders + 2]], dim=1) + aims

    def decoding(self, labels: Tensor) -> RARDecoding:
        return RARDecoding(self, labels)
