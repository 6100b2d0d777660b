"""The diffusion transformer (Peebles & Xie 2022, arXiv 2212.09748) that `flow_transformer` and `dit` share.

Tokens of the transformer are the latent tokens, or patches of them. Internally latents are normalised; inputs and
outputs of generators are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.rotary import grid_rotations
from robustok_blocks.sinusoids import grid_positions, sequence_positions
from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.validators import below_one, depth_range, side_range, width_range
from robustok_core.values.finite import all_finite
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Latents, LatentSpace
from robustok_generators.flow_blocks import FlowBlock, FlowHead, Style, TimeEmbedding
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.prepared_linear import prepared_linear
from robustok_generators.repeated_step import Execution, repeated
from robustok_generators.sizes import Size, size_field, size_of

PRESETS = {
    "S": Size(width=384, depth=12, num_heads=6, mlp_width=1536),
    "B": Size(width=768, depth=12, num_heads=12, mlp_width=3072),
    "L": Size(width=1024, depth=24, num_heads=16, mlp_width=4096),
    "XL": Size(width=1152, depth=28, num_heads=16, mlp_width=4608),
}


@frozen(kw_only=True)
class TransformerConfig:
    """Options of every diffusion transformer: a preset, or explicit sizes."""

    preset: Literal["S", "B", "L", "XL"] | None = field(default=None, metadata={"doc": "a published size"})
    width: int | None = size_field("numbers per token")
    depth: int | None = size_field("blocks", depth_range)
    num_heads: int | None = size_field("attention heads")
    mlp_width: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "hidden width of the MLPs; left out: 4 width, or 8/3 width for swiglu"},
    )
    patch_size: int = field(
        default=1,
        validator=side_range,
        metadata={"doc": "side of the square of latent tokens that are one token of the transformer"},
    )
    label_dropout: float = field(
        default=0.1,
        validator=below_one,
        metadata={"doc": "share of training images whose label is dropped; 0: no guidance"},
    )
    guided_channels: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={
            "doc": "number of first channels of each latent to guide; published: 3 (SiT, DiT, LightningDiT); "
            "left out: all"
        },
    )

    def __attrs_post_init__(self) -> None:
        if self.size.width % 4:
            raise ValueError(f"fixed positions need a width that is a multiple of 4, not {self.size.width}")

    @property
    def size(self) -> Size:
        """The preset's size, overridden by the sizes given."""
        width = self.width or (PRESETS[self.preset].width if self.preset else None)
        return size_of(self, PRESETS, None if width is None else self.usual_mlp_width(width))

    def usual_mlp_width(self, width: int) -> int:
        """The hidden width of the MLPs, if it is not given."""
        return 4 * width


class DiffusionTransformer(Generator, ABC):
    """The network; a subclass gives its outputs a meaning.

    Args:
        config: sizes.
        space, num_classes: as for every generator.
        style: the variant of the blocks.
        outputs: D', numbers that the network gives for each latent token.
        rope: whether the blocks also use rotary positions.

    Raises:
        RobustokError: the latent space is discrete, or lacks the grid that rope or patches need.
    """

    #: The name that recipes call it by.
    name: ClassVar[str]
    not_decayed = ("label_embedding.weight",)
    positions: Tensor
    rotations: Tensor | None
    #: How many of the first channels of each latent are guided.
    guided_channels: int
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        config: TransformerConfig,
        space: LatentSpace,
        num_classes: int,
        *,
        style: Style,
        outputs: int,
        rope: bool = False,
    ) -> None:
        super().__init__()
        check_space(config, space, rope=rope, where=f"generator {self.name}")
        self.space, self.num_classes, self.patch_size = space, num_classes, config.patch_size
        self.null_label = num_classes
        self.guided_channels = config.guided_channels or space.width
        self.knows_null_class = config.label_dropout > 0.0
        size, patch_area = config.size, config.patch_size**2
        self.token_embedding = nn.Linear(patch_area * space.width, size.width)
        self.time_embedding = TimeEmbedding(size.width)
        self.label_embedding = nn.Embedding(num_classes + 1, size.width)
        self.blocks = nn.ModuleList(FlowBlock(size, style) for _ in range(size.depth))
        self.head = FlowHead(size.width, patch_area * outputs, style.norm)
        self._register_buffers(size, rope=rope)
        self._initialise()

    def _register_buffers(self, size: Size, *, rope: bool) -> None:
        grid = self._patch_grid()
        positions = grid_positions(grid, size.width) if grid else sequence_positions(self.space.num_tokens, size.width)
        self.register_buffer("positions", positions[None])
        self.register_buffer("rotations", grid_rotations(grid, size.head_width) if rope and grid else None)
        self.register_buffer("latent_mean", torch.zeros(self.space.width))
        self.register_buffer("latent_std", torch.ones(self.space.width))

    def _patch_grid(self) -> tuple[int, int] | None:
        """The grid of the transformer's tokens."""
        if self.space.grid is None:
            return None
        rows, columns = self.space.grid
        return rows // self.patch_size, columns // self.patch_size

    def _initialise(self) -> None:
        """Initialises as DiT: modulations and outputs start at zero, so that each block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.label_embedding.weight, std=0.02)
        for submodule in self.time_embedding.mlp:
            if isinstance(submodule, nn.Linear):
                nn.init.normal_(submodule.weight, std=0.02)
        for submodule in [*self.blocks, self.head]:
            nn.init.zeros_(submodule.get_parameter("modulation.weight"))
        nn.init.zeros_(self.head.to_velocity.weight)

    @torch.no_grad()
    def observe(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and standard deviation (D,) that normalise latents; a constant channel is only shifted.

        Raises:
            ValueError: they are not (D,), not finite, or a deviation is negative.
        """
        if mean.shape != (self.space.width,) or std.shape != (self.space.width,):
            raise ValueError(f"expected {self.space.width} means and deviations, found {mean.shape} and {std.shape}")
        if not (all_finite(mean, std) and (std >= 0.0).all()):
            raise ValueError("means and deviations must be finite, and deviations must not be negative")
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(torch.where(std == 0.0, 1.0, std))

    def _normalised(self, latents: Latents) -> Tensor:
        return (self._vectors(latents).float() - self.latent_mean) / self.latent_std

    def _denormalised(self, x: Tensor) -> Latents:
        return Latents(vectors=x * self.latent_std + self.latent_mean)

    def _vectors(self, latents: Latents) -> Tensor:
        if latents.vectors is None:
            raise ValueError(f"{self.name} reads latents with vectors")
        return latents.vectors

    def _conditions(self, network_times: Tensor, embedded: Tensor) -> Tensor:
        """(n, width) inputs of the modulations, for the network's own times (n,) or (1,) and embedded labels."""
        return F.silu(self.time_embedding(network_times) + embedded)

    @abstractmethod
    def network_times(self, t: float, device: torch.device) -> Tensor:
        """(1,) float32: the network's own time at a sampler's time t in [0, 1]."""

    @abstractmethod
    def predicted(self, x: Tensor, network_times: Tensor, embedded: Tensor, row: Tensor) -> Tensor:
        """Predictions (rows, N, D') float32 of states x, as `velocity` or `prediction`.

        Args:
            x: (rows, N, D) float32, normalised.
            network_times: (1,) float32.
            embedded: (classes, width), embedded labels.
            row: (rows,) int64, the index of each row's class.
        """

    @contextmanager
    def _guided(
        self, execution: Execution, guidance: Guidance, channels: int | None
    ) -> Iterator[Callable[[Tensor], GuidedVelocity]]:
        """A function from labels (B,) to their guided predictions; all its results share what is prepared or compiled.

        Args:
            execution: the sampler's option. guidance, channels: see `GuidedVelocity`.
        """
        device = self.latent_mean.device
        with prepared_linear(self), repeated(self.predicted, self.blocks, execution, device) as step:

            def of_labels(labels: Tensor) -> GuidedVelocity:
                embedded: list[Tensor] = []

                def predict(x: Tensor, t: float, classes: Tensor, row: Tensor) -> Tensor:
                    if not embedded:  # the classes stay the same
                        embedded.append(self.label_embedding(classes))
                    return step(x, self.network_times(t, device), embedded[0], row)

                return GuidedVelocity(predict, labels, null_label=self.null_label, guidance=guidance, channels=channels)

            yield of_labels

    def _outputs(self, x: Tensor, conditions: Tensor, row: Tensor | None) -> Tensor:
        """Outputs (B, N, D') of normalised latents (B, N, D); row i has condition `row[i]`, or i if `row` is None."""

        def modulation(block: nn.Module) -> Tensor:
            table = block.get_submodule("modulation")(conditions)
            return (table if row is None else table.index_select(0, row))[:, None]

        x = self.token_embedding(self._patches(x)) + self.positions
        for block in self.blocks:
            x = block(x, modulation(block), self.rotations)
        return self._tokens(self.head(x, modulation(self.head)))

    def _patches(self, x: Tensor) -> Tensor:
        """(B, N / p^2, p^2 D), patches in raster order, of tokens x (B, N, D)."""
        grid, p = self._patch_grid(), self.patch_size
        if grid is None or p == 1:
            return x
        return rearrange(x, "b (h p w q) c -> b (h w) (p q c)", h=grid[0], w=grid[1], p=p, q=p)

    def _tokens(self, x: Tensor) -> Tensor:
        """The inverse of `_patches`, for any number of channels."""
        grid, p = self._patch_grid(), self.patch_size
        if grid is None or p == 1:
            return x
        return rearrange(x, "b (h w) (p q c) -> b (h p w q) c", h=grid[0], w=grid[1], p=p, q=p)


def check_space(config: TransformerConfig, space: LatentSpace, *, rope: bool, where: str) -> None:
    """Checks that a diffusion transformer fits a latent space; raises RobustokError."""
    problem = _problem(config, space, rope=rope)
    if problem is not None:
        raise RobustokError(problem[0], where=where, hint=problem[1])


def _problem(config: TransformerConfig, space: LatentSpace, *, rope: bool) -> tuple[str, str | None] | None:
    """What does not fit, and what to do."""
    p = config.patch_size
    if space.kind != "continuous":
        what = f"it samples vectors, and this latent space has codes: {space.describe()}"
        return what, "use a tokenizer without a quantizer, or a generator of codes"
    if rope and space.grid is None:
        return "rope needs tokens on a grid, and this latent space has no grid", "set rope = false"
    if p > 1 and space.grid is None:
        return "patches need tokens on a grid, and this latent space has no grid", "set patch_size = 1"
    if space.grid is not None and any(side % p for side in space.grid):
        return f"a grid of {space.grid[0]} by {space.grid[1]} tokens has no whole patches of side {p}", None
    if config.guided_channels is not None and config.guided_channels > space.width:
        return f"guided_channels is {config.guided_channels}, but a token has {space.width} channels", None
    return None
