"""A frozen table of vectors behind one learned linear layer: VQGAN-LC (Zhu et al. 2024, arXiv 2406.11837).

VQGAN-LC's table holds 100,000 cluster centres of CLIP's patch features. Because the codewords move together, nearly
all of them are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_blocks.straight_through import straight_through
from robustok_core.errors import RobustokError
from robustok_core.kinds.nearest import distance_scores
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import codebook_range, width_range
from robustok_core.values.download import Download, local_file, named_path
from robustok_core.values.finite import all_finite
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import Latents
from robustok_toolkit.weight_files import read_matrix


@frozen(kw_only=True)
class ProjectedVQConfig:
    """Options of `projected_vq`; the weights of its losses are VQGAN-LC's."""

    codebook_size: int = field(default=4096, validator=codebook_range, metadata={"doc": "K, number of codewords"})
    width: int = field(default=8, validator=width_range, metadata={"doc": "D, numbers per codeword"})
    table_width: int = field(
        default=768,
        validator=width_range,
        metadata={"doc": "numbers per row of the frozen table"},
    )
    table: str | None = field(
        default=None,
        metadata={
            "doc": "file of the frozen rows, a tensor (codebook_size, table_width) as VQGAN-LC's codebook-100K.pth; "
            "left out: they are random"
        },
    )
    commitment: float = field(
        default=1.0, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls vectors to codewords"}
    )
    codebook_weight: float = field(
        default=0.33, validator=validators.ge(0), metadata={"doc": "weight of the term that pulls codewords to vectors"}
    )


class ProjectedVQ(Quantizer):
    """Replaces each vector by its nearest codeword, where codewords are a linear map of frozen rows.

    Buffers:
        table: (K, table_width), the frozen rows.
    """

    Config = ProjectedVQConfig
    table: Tensor

    def __init__(self, config: ProjectedVQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.width = config.codebook_size, config.width
        self.register_buffer("table", torch.randn(config.codebook_size, config.table_width))
        if config.table is not None and not self.table.is_meta:
            self.table.copy_(_rows(Path(config.table).expanduser(), self.table.shape))
        self.projection = nn.Linear(config.table_width, config.width)

    @classmethod
    def downloads(cls, config: ProjectedVQConfig) -> Iterable[Download]:
        if config.table is not None:
            local_file(config.table, hint="set table to a file of the frozen rows, or leave it out")
        return []

    @classmethod
    def files(cls, config: ProjectedVQConfig) -> Iterable[Path]:
        return named_path(config.table)

    @property
    def codebook(self) -> Tensor:
        """(K, D) float32."""
        with full_precision(self.table.device):
            return self.projection(self.table)

    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) codewords of codes (...)."""
        return F.embedding(codes, self.codebook)

    def quantize(self, z: Tensor) -> Latents:
        """Latents of z (B, N, D); losses "codebook" and "commitment" in training mode."""
        compared, codebook = z.float(), self.codebook
        codes = torch.cat([scores.argmin(dim=1) for scores in distance_scores(compared.flatten(0, 1), codebook)])
        codes = codes.view(z.shape[:2])
        codewords = F.embedding(codes, codebook)
        losses = {}
        if self.training:
            losses = {
                "commitment": self.config.commitment * F.mse_loss(compared, codewords.detach()),
                "codebook": self.config.codebook_weight * F.mse_loss(codewords, compared.detach()),
            }
        return Latents(vectors=straight_through(compared, codewords), codes=codes, features=z, losses=losses)


def _rows(file: Path, shape: torch.Size) -> Tensor:
    """The rows in a file; raises RobustokError if they are not finite floats of this shape."""
    rows = read_matrix(file)
    if rows.shape != shape or not rows.is_floating_point() or not all_finite(rows.float()):
        found = f"{tuple(rows.shape)} {str(rows.dtype).removeprefix('torch.')}"
        hint = "codebook_size is the number of its rows, table_width that of its columns"
        what = f"the table must hold {tuple(shape)} finite floats, found {found}"
        raise RobustokError(what, where=str(file), hint=hint)
    return rows
