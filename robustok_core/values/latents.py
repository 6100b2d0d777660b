"""The values that flow between tokenizers, perturbations and generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.values.draws import Draws


def _pair(grid: Sequence[int] | None) -> tuple[int, int] | None:
    return None if grid is None else (grid[0], grid[1])


@frozen(kw_only=True)
class LatentSpace:
    """What a generator must know about a tokenizer; components with equal spaces fit each other.

    Attributes:
        kind: "discrete" (codes of a codebook) or "continuous" (vectors only).
        num_tokens: N, tokens per image.
        width: D, the dimension of a token.
        codebook_size: K, or None if the space is continuous.
        grid: (rows, columns) of the tokens, or None if tokens have no position in the image.
    """

    kind: Literal["discrete", "continuous"] = field(validator=validators.in_(("discrete", "continuous")))
    num_tokens: int = field(validator=validators.ge(1))
    width: int = field(validator=validators.ge(1))
    codebook_size: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    grid: tuple[int, int] | None = field(default=None, converter=_pair)  # JSON gives a list

    def __attrs_post_init__(self) -> None:
        if (self.kind == "discrete") != (self.codebook_size is not None):
            raise ValueError("a discrete latent space has a codebook size, a continuous one has none")
        if self.grid is not None and self.grid[0] * self.grid[1] != self.num_tokens:
            raise ValueError(f"a grid of {self.grid} does not hold {self.num_tokens} tokens")

    def describe(self) -> str:
        """One line for messages: "discrete, 256 tokens of width 64, K=4096"."""
        codes = "" if self.codebook_size is None else f", K={self.codebook_size}"
        return f"{self.kind}, {self.num_tokens} tokens of width {self.width}{codes}"


@frozen(kw_only=True, eq=False)
class Latents:
    """The latents of a batch of images.

    Attributes:
        vectors: (B, N, D) float, what the decoder reads; None if only codes are known
            (a generator's output), in which case the tokenizer looks them up.
        codes: (B, N) int64 in [0, K), or None in a continuous space.
        features: (B, N, D) float, the encoder's output before the quantizer, or None.
        hidden: (B, N) bool, the tokens that training hid from the encoder, for a decoder that does not read their
            vectors, or None.
        losses: the quantizer's own loss terms, weighted, scalars; empty outside training.
    """

    vectors: Tensor | None = None
    codes: Tensor | None = None
    features: Tensor | None = None
    hidden: Tensor | None = None
    losses: Mapping[str, Tensor] = field(factory=dict)

    def __len__(self) -> int:
        values = self.codes if self.vectors is None else self.vectors
        if values is None:
            raise ValueError("latents hold neither vectors nor codes")
        return values.shape[0]

    def __getitem__(self, rows: Any) -> Latents:
        """The latents of the selected images: a slice, a mask or indices over the batch."""
        return self._map(lambda tensor: tensor[rows])

    def detach(self) -> Latents:
        """The same values, detached from the graph."""
        return self._map(lambda tensor: tensor.detach())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Latents:
        """The same values on another device; `non_blocking` as of `torch.Tensor.to`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Latents:
        """The same values in page-locked memory, for faster copies to a device."""
        return self._map(lambda tensor: tensor.pin_memory())

    def without_features(self) -> Latents:
        """What a generator gives and takes: codes alone, or vectors in a continuous space."""
        return Latents(codes=self.codes) if self.codes is not None else Latents(vectors=self.vectors)

    def evolve(self, **changes: Any) -> Latents:
        """A copy with some attributes replaced."""
        return attrs.evolve(self, **changes)

    def _map(self, change: Any) -> Latents:
        def changed(part: Tensor | None) -> Tensor | None:
            return None if part is None else change(part)

        return Latents(
            vectors=changed(self.vectors),
            codes=changed(self.codes),
            features=changed(self.features),
            hidden=changed(self.hidden),
        )


@frozen(kw_only=True, eq=False)
class Keep:
    """What a generator must preserve of real images (paper section 4, symbol sigma).

    An autoregressive generator preserves each token with probability sigma (partial teacher forcing); a
    diffusion generator starts from the latents noised to time 1 - sigma (SDEdit). sigma = 1 is
    reconstruction, sigma = 0 unconstrained generation.
    """

    latents: Latents
    sigma: float = field(validator=[validators.ge(0.0), validators.le(1.0)])

    def mask(self, draws: Draws) -> Tensor:
        """(B, N) bool: which tokens are kept, each with probability sigma, by the row's own draws."""
        held = self.latents.vectors if self.latents.codes is None else self.latents.codes
        if held is None:
            raise ValueError("latents hold neither vectors nor codes")
        return draws.child("keep").uniform(held.shape[1]) < self.sigma

    def over(self, codes: Tensor, draws: Draws) -> Tensor:
        """(B, N) int64 codes of a generator, with the real images' codes in place of those that are kept.

        Args:
            codes: (B, N) int64, drawn without regard to each other; a generator that conditions a token on those
                before it puts in the kept ones of `mask` while it draws.
            draws: those of `Generator.sample`.
        """
        if self.latents.codes is None:
            raise ValueError("codes cannot be kept of latents that hold vectors only")
        return torch.where(self.mask(draws), self.latents.codes, codes)
