"""Similar images in a latent space, and the way to them, as iFID has them (arXiv 2603.05630)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.draws import Draws
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import LatentSpace
from robustok_core.values.machine_memory import usable_memory
from robustok_toolkit.image_features import gather_shares
from robustok_training.batches import class_balanced_order, evaluation_batches
from robustok_training.distributed import rank, world_size

_ENCODED_AT_ONCE = 100
#: Number of similarities in memory: 64 MiB in float32.
_SIMILARITIES_AT_ONCE = 2**24
#: Latents at a smaller angle are as good as parallel: the weights of slerp would be 0 / 0.
_PARALLEL = 1e-6
#: How far a point is moved to one of the two codewords that it lies between, before the nearest codeword is sought:
#: far above rounding, far below the distances of codewords.
_OFF_THE_MIDDLE = 1e-3


class LatentNeighbours:
    """The latents of images, among which similar ones are found.

    Args:
        vectors: (M, N, D). cosine: whether similarity is the cosine of whole latents, else their distance.
        indices: (M,) int64, of the images in their split; by default 0 to M - 1.
    """

    def __init__(self, vectors: Tensor, *, cosine: bool, indices: Tensor | None = None) -> None:
        self.vectors, self.cosine = vectors, cosine
        self.indices = torch.arange(len(vectors)) if indices is None else indices
        self._flat = rearrange(vectors, "m n d -> m (n d)")

    @classmethod
    @torch.no_grad()
    def encode(
        cls, tokenizer: Tokenizer, images: Images, *, limit: int | None, cosine: bool, device: torch.device
    ) -> LatentNeighbours:
        """Encodes images, without augmentation; with several processes, each encodes its share and all get all.

        Args:
            limit: encode only the first `limit` images of `class_balanced_order`.

        Raises:
            RobustokError: if the latents do not fit into memory.
        """
        count, world = min(len(images), limit or len(images)), world_size()
        if (problem := memory_problem(tokenizer.space, count)) is not None:
            raise problem
        batches = evaluation_batches(images, batch_size=_ENCODED_AT_ONCE, rank=rank(), world=world, limit=limit)
        with full_precision(device):
            parts = [tokenizer.vectors_of(tokenizer.encode(batch.images.to(device))).float().cpu() for batch in batches]
        space = tokenizer.space
        own = torch.cat([torch.empty(0, space.num_tokens, space.width), *parts])
        ends = [count * process // world for process in range(world + 1)]  # as evaluation_batches cuts
        vectors = gather_shares(own, [after - before for before, after in pairwise(ends)])
        chosen = torch.arange(len(images)) if count == len(images) else class_balanced_order(images.labels)[:count]
        return cls(vectors.to(device), cosine=cosine, indices=chosen.sort().values)

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, vectors: Tensor) -> Tensor:
        """(B,) int64 on the CPU: for each of the latents (B, N, D), the index of the most similar image."""
        rows = rearrange(vectors.float(), "b n d -> b (n d)")
        return self.indices[self._most_similar(rows, 1)[:, 0].cpu()]

    def drawn(self, vectors: Tensor, count: int, draws: Draws) -> Tensor:
        """(B, N, D) for each of the latents (B, N, D), one of the `count` most similar ones.

        Each is drawn with probability softmax(-d), where d is the mean squared difference over its N D numbers.
        """
        flat = rearrange(vectors.float(), "b n d -> b (n d)")
        candidates = self._flat[self._most_similar(flat, count)]  # (B, count, N D)
        weights = (-(flat[:, None] - candidates).square().mean(dim=2)).softmax(dim=1)
        passed = weights.cumsum(dim=1) <= draws.uniform(1)  # (B, count)
        chosen = passed.sum(dim=1).clamp(max=count - 1)
        picked = candidates[torch.arange(len(flat), device=flat.device), chosen]
        return picked.view_as(vectors).to(vectors.dtype)

    def _most_similar(self, flat: Tensor, count: int) -> Tensor:
        """(B, count) int64, most similar first."""
        values, indices, start = [], [], 0
        for part in self._flat.split(max(count, _SIMILARITIES_AT_ONCE // len(flat))):
            best = self._similarity(flat, part).topk(min(count, len(part)), dim=1)
            values.append(best.values)
            indices.append(best.indices + start)
            start += len(part)
        order = torch.cat(values, dim=1).topk(count, dim=1).indices
        return torch.cat(indices, dim=1).gather(1, order)

    def _similarity(self, flat: Tensor, part: Tensor) -> Tensor:
        if self.cosine:
            return F.normalize(flat, dim=1) @ F.normalize(part, dim=1).T
        return -torch.cdist(flat, part)


def memory_problem(space: LatentSpace, count: int) -> RobustokError | None:
    """What is wrong if the vectors of `count` images do not fit twice into the memory of this process, else None.

    They are held once in the end, and twice while the batches are put together.
    """
    of_image, memory = 2 * space.num_tokens * space.width * torch.float32.itemsize, usable_memory()
    if count * of_image <= memory:
        return None
    needed, usable = (f"{number / 2**30:.3g} GiB" for number in (count * of_image, memory))
    what = f"the latents of {count:,} training images take {needed}, but this process may use {usable} of memory"
    return RobustokError(what, hint=f"set train_images to at most {memory // of_image:,}")


def between(vectors: Tensor, neighbours: Tensor, way: str, weight: float, tokenizer: Tokenizer, draws: Draws) -> Tensor:
    """(B, N, D) latents on the way from `vectors` to `neighbours`, both (B, N, D).

    Args:
        way: "linear"; "slerp"; "quantized", the codewords nearest to slerp's; or "mask", the neighbour's in the upper
            half of the grid, or in the first half of tokens without a place.
        weight: how far, in [0, 1]; not of a mask.
        draws: for "quantized". Halfway, the codewords of both may be equally near, and rounding would choose; so each
            token is first moved a thousandth of the way to one of them, chosen with equal chances.
    """
    if way == "linear":
        return torch.lerp(vectors, neighbours, weight)
    if way == "mask":
        tokens = vectors.shape[1]
        grid = tokenizer.space.grid
        first = tokens // 2 if grid is None else grid[0] // 2 * grid[1]
        return torch.where((torch.arange(tokens, device=vectors.device) < first)[:, None], neighbours, vectors)
    turned = slerp(vectors, neighbours, weight)
    if way == "slerp":
        return turned
    assert tokenizer.quantizer is not None
    chosen = torch.where((draws.uniform(vectors.shape[1]) < 0.5)[..., None], vectors, neighbours)
    rows = rearrange(turned.lerp(chosen, _OFF_THE_MIDDLE), "b n d -> (b n) d")
    codes = tokenizer.quantizer.nearest(rows, 1)[:, 0]
    return tokenizer.quantizer.lookup(codes.view(turned.shape[:2]))


def slerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Spherical interpolation of whole latents (B, N, D); linear where they are parallel."""
    from_, to = (rearrange(vectors, "b n d -> b (n d)") for vectors in (start, end))
    cosine = (F.normalize(from_, dim=1) * F.normalize(to, dim=1)).sum(dim=1, keepdim=True).clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    turned = (((1 - weight) * angle).sin() * from_ + (weight * angle).sin() * to) / sine.clamp(min=_PARALLEL)
    return torch.where(sine < _PARALLEL, torch.lerp(from_, to, weight), turned).view_as(start)
