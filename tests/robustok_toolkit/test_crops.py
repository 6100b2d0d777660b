from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robustok_toolkit.crops import by_pillow, by_torch, center_crop, random_crop


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8))


#: Prints a digest of crops of noise.
PIXELS = """
import hashlib
import numpy as np
from PIL import Image
from robustok_toolkit.crops import by_torch, center_crop

numbers, sizes = np.random.default_rng(0), ((45, 60), (33, 97), (20, 21))
images = [Image.fromarray(numbers.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
print(hashlib.sha256(b"".join(center_crop(image, 32, by_torch).tobytes() for image in images)).hexdigest())
"""


def adm_center_crop(image: Image.Image, size: int) -> np.ndarray:
    """By definition: halve with BOX while min >= 2 size, BICUBIC to the shorter side, slice the middle."""
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), resample=Image.BOX)
    factor = size / min(image.size)
    array = np.array(image.resize(tuple(round(side * factor) for side in image.size), resample=Image.BICUBIC))
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 150), height=st.integers(1, 150), size=st.sampled_from([8, 13, 32]))
def test_the_center_crop_is_adms(width: int, height: int, size: int) -> None:
    image = noise(width, height)
    cropped = np.asarray(center_crop(image, size))
    assert cropped.shape == (size, size, 3)
    assert np.array_equal(cropped, adm_center_crop(image, size))


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 150), height=st.integers(1, 150), size=st.sampled_from([8, 13, 32]))
def test_torchs_resizing_is_pillows_but_for_two_grey_levels(width: int, height: int, size: int) -> None:
    image = noise(width, height)
    exact, fast = (np.asarray(center_crop(image, size, resize), dtype=int) for resize in (by_pillow, by_torch))
    assert fast.shape == exact.shape
    assert np.abs(fast - exact).max() <= 2
    assert (fast != exact).mean() < 0.03


def test_torchs_pixels_do_not_depend_on_the_processor() -> None:
    said = [sys.executable, "-c", PIXELS]
    ways = [os.environ | {"ATEN_CPU_CAPABILITY": capability} for capability in ("default", "avx2", "avx512")]
    digests = [subprocess.run(said, env=way, capture_output=True, text=True, check=True).stdout for way in ways]
    assert digests[0] == digests[1] == digests[2] != ""


def test_an_image_four_times_as_large_is_averaged_over_blocks() -> None:
    image = noise(64, 64)
    means = np.asarray(image, dtype=float).reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(center_crop(image, 16)) - means).max() < 2.5  # rounded to 8 bits four times


def test_an_image_of_the_right_height_is_only_cropped() -> None:
    image = noise(41, 16)
    assert np.array_equal(np.asarray(center_crop(image, 16)), np.asarray(image)[:, 12:28])


@pytest.mark.parametrize("numbers", [(0, 0, 0), (8, 3, 5), (2**62, 2**62 + 1, 2**61 + 7)])
def test_a_random_crop_is_a_window_of_the_image_at_a_scale_of_at_most_five_quarters(numbers: tuple[int, ...]) -> None:
    image = noise(80, 60)
    cropped = np.asarray(random_crop(image, 32, torch.tensor(numbers)))
    side = 32 + numbers[0] % 9  # shorter side in 32..40
    resized = np.asarray(image.resize((round(80 * side / 60), side), Image.BICUBIC))
    windows = np.lib.stride_tricks.sliding_window_view(resized, (32, 32, 3))[..., 0, :, :, :]
    assert (windows == cropped).all((-1, -2, -3)).any()


def test_random_crops_reach_every_scale_and_every_edge() -> None:
    image = noise(32, 32)
    seen = {random_crop(image, 32, torch.tensor([side, 0, 0])).tobytes() for side in range(9)}
    assert len(seen) == 9
    largest = image.resize((40, 40), Image.BICUBIC)
    corner = random_crop(image, 32, torch.tensor([8, 8, 8]))
    assert np.array_equal(np.asarray(corner), np.asarray(largest)[8:, 8:])


@pytest.mark.parametrize("shape", [(900, 7), (10, 1000), (31, 450), (300, 200)])
@pytest.mark.parametrize("numbers", [(3, 0, 5), (8, 2**40, 2**41), (5, 77777, 3333)])
def test_what_is_too_large_to_resize_whole_gets_the_same_crop(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], numbers: tuple[int, ...]
) -> None:
    image = noise(*shape)
    whole = [random_crop(image, 32, torch.tensor(numbers)), center_crop(image, 32)]
    monkeypatch.setattr("robustok_toolkit.crops._MOST_PIXELS", 0)
    part = [random_crop(image, 32, torch.tensor(numbers)), center_crop(image, 32)]
    for one, other in zip(whole, part, strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1  # edges are rounded to float32


@pytest.mark.parametrize("shape", [(100_000, 1), (1, 100_000)])
def test_a_tiny_file_with_a_long_image_needs_little_memory(shape: tuple[int, int]) -> None:
    with memory_limit(1_000_000_000):  # resized whole, it would take 20 GB
        image = Image.new("RGB", shape, "red")
        assert center_crop(image, 256).getcolors() == [(256 * 256, (255, 0, 0))]
        assert random_crop(image, 256, torch.tensor([60, 2**40, 2**41])).size == (256, 256)


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Allows this process so many more bytes."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
