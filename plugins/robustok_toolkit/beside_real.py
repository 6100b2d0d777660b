"""What a generator makes of real images, beside their latents: what the measurements of its errors begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from robustok_core.kinds.dataset import Images
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.precision import Precision, autocast
from robustok_core.values.draws import Draws
from robustok_core.values.full_precision import without_tf32
from robustok_core.values.latents import Latents
from robustok_toolkit.generating import own_share

#: Makes latents of B images from their labels (B,), random numbers and latents.
Make = Callable[[Tensor, Draws, Latents], Latents]


@torch.no_grad()
def made_beside_real(
    tokenizer: Tokenizer,
    images: Images,
    rows: Sequence[int],
    make: Make,
    *,
    device: torch.device,
    seed: int,
    precision: Precision,
    batch_size: int,
) -> Iterator[tuple[Latents, Latents]]:
    """Yields, batch by batch, the latents of this process's share of images, and what is made of them.

    Image i gets the same random numbers whatever the batches and processes.

    Args:
        rows: indices of images, of all processes. make: the generator's part.
        device: its. precision: its; the tokenizer uses float32.
    """
    own = [rows[number] for number in own_share(len(rows)).tolist()]
    for start in range(0, len(own), batch_size):
        batch = images.load(own[start : start + batch_size]).to(device)
        draws = Draws(seed=seed, indices=batch.indices, total=len(images))
        with without_tf32():
            real = tokenizer.encode(batch.images).without_features()
            with autocast(precision, device):
                made = make(batch.labels, draws, real)
        yield real, made
