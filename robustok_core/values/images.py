"""Images as files hold them: 8 bits a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.values.finite import all_finite


def to_uint8(images: Tensor) -> Tensor:
    """Converts images in [-1, 1] to uint8: clamped, then (x + 1) * 127.5 rounded half up.

    It inverts `from_uint8`: `to_uint8(from_uint8(pixels))` is `pixels`.

    Raises:
        RunError: if an image is not finite; it would be saved as a black or white one.
    """
    if not all_finite(images):
        finite = images.isfinite().flatten(1).all(1) if images.ndim > 1 else images.isfinite()
        what = f"{int((~finite).sum())} of {len(finite)} decoded images hold values that are NaN or infinite"
        hint = "the weights of the decoder are damaged or diverged, or its latents are too large"
        raise RunError(what, where="images", hint=hint)
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5 + 0.5).floor().to(torch.uint8)


def from_uint8(pixels: Tensor) -> Tensor:
    """Converts uint8 pixels to float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.float() / 127.5 - 1.0
