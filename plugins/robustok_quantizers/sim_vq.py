"""SimVQ (Zhu et al. 2024, arXiv 2411.02038): a frozen random codebook behind one learned linear layer."""

from __future__ import annotations

import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.straight_through import straight_through
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import codebook_range, width_range
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import Latents
from robustok_quantizers.library import check_fits, with_all_buffers_saved


@frozen(kw_only=True)
class SimVQConfig:
    """Options of `sim_vq`."""

    codebook_size: int = field(default=4096, validator=codebook_range, metadata={"doc": "K, number of codewords"})
    width: int = field(default=64, validator=width_range, metadata={"doc": "D, numbers per codeword"})
    commitment: float = field(
        default=0.25, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls vectors to codewords"}
    )
    codebook_weight: float = field(
        default=1.0, validator=validators.gt(0), metadata={"doc": "weight of the term that pulls codewords to vectors"}
    )

    def __attrs_post_init__(self) -> None:
        check_fits((self.codebook_size + self.width) * self.width)


class SimVQ(Quantizer):
    """Codewords are a learned linear map of a frozen table. All move together, so that no code dies."""

    Config = SimVQConfig

    def __init__(self, config: SimVQConfig) -> None:
        super().__init__()
        from vector_quantize_pytorch import SimVQ as LibrarySimVQ

        self.config = config
        self.codebook_size, self.width = config.codebook_size, config.width
        self.library = with_all_buffers_saved(
            lambda: LibrarySimVQ(
                dim=config.width,
                codebook_size=config.codebook_size,
                rotation_trick=False,
                commitment_weight=config.codebook_weight,
                input_to_quantize_commit_loss_weight=config.commitment / config.codebook_weight,
            )
        )

    @property
    def codebook(self) -> Tensor:
        with full_precision(self.library.frozen_codebook.device):
            return self.library.codebook

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook)

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); one loss in training mode, "codebook_and_commitment"."""
        with full_precision(z.device):
            _, codes, loss = self.library(z.float())
        losses = {"codebook_and_commitment": loss} if self.training else {}
        return Latents(vectors=straight_through(z.float(), self.lookup(codes)), codes=codes, features=z, losses=losses)
