from __future__ import annotations

import torch

from robustok_core.values.images import from_uint8, to_uint8


def test_rounding_to_8_bits_preserves_every_8_bit_image() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(pixels)), pixels)


def test_rounding_is_idempotent() -> None:
    images = torch.linspace(-1.2, 1.2, 10_001)
    once = from_uint8(to_uint8(images))
    assert torch.equal(from_uint8(to_uint8(once)), once)


def test_halves_are_rounded_up_and_values_out_of_range_are_clipped() -> None:
    levels = torch.tensor([-3.0, 0.25, 0.75, 127.5, 254.75, 300.0], dtype=torch.float64)
    assert to_uint8(levels / 127.5 - 1).tolist() == [0, 0, 1, 128, 255, 255]
