"""`colour_error` against CIEDE2000 written from the paper (Sharma, Wu, Dalal 2005), which its published pairs check."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from project import Project
from robustok_metrics.colour_error import ColourError, ColourErrorConfig, colour_error

#: Two colours in CIELAB and their difference: rows of the paper's table 1.
PUBLISHED = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, 2.8361, -74.0200), (50.0, 0.0, -82.7485), 3.4412),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.5000, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
]
WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees


def lab(pixel: list[int]) -> tuple[float, float, float]:
    """CIELAB of an sRGB pixel in 0..255 (IEC 61966-2-1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (level / 255 for level in pixel)]
    matrix = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
    xyz = [sum(a * b for a, b in zip(row, linear, strict=True)) / w for row, w in zip(matrix, WHITE, strict=True)]
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def hue(a: float, b: float) -> float:
    return math.degrees(math.atan2(b, a)) % 360 if a or b else 0.0


def ciede2000(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """The paper's equations 2 to 22."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean**7 / (mean**7 + 25**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2, h1, h2 = math.hypot(a1, b1), math.hypot(a2, b2), hue(a1, b1), hue(a2, b2)
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    sum_h = h1 + h2 if c1 * c2 == 0 or abs(h1 - h2) <= 180 else h1 + h2 + (360 if h1 + h2 < 360 else -360)
    h = sum_h if c1 * c2 == 0 else sum_h / 2
    light, c = (l1 + l2) / 2, (c1 + c2) / 2
    t = sum(
        factor * math.cos(math.radians(n * h - shift))
        for factor, n, shift in ((1, 0, 0), (-0.17, 1, 30), (0.24, 2, 0), (0.32, 3, -6), (-0.20, 4, 63))
    )
    s_l = 1 + 0.015 * (light - 50) ** 2 / math.sqrt(20 + (light - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = 60 * math.exp(-(((h - 275) / 25) ** 2))
    r_t = -math.sin(math.radians(rotation)) * 2 * math.sqrt(c**7 / (c**7 + 25**7))
    d_l, d_c = (l2 - l1) / s_l, (c2 - c1) / s_c
    d_h = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2)) / s_h
    return math.sqrt(d_l**2 + d_c**2 + d_h**2 + r_t * d_c * d_h)


def random_images(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize(("one", "other", "difference"), PUBLISHED)
def test_the_reference_gives_the_published_differences(one, other, difference) -> None:
    assert ciede2000(one, other) == pytest.approx(difference, abs=1e-4)
    assert ciede2000(other, one) == pytest.approx(difference, abs=1e-4)


def test_it_is_the_mean_difference_of_all_pixels_of_an_image() -> None:
    real = random_images(0)
    for images in (random_images(1), (real.int() + 9).clamp(max=255).to(torch.uint8), real.flip(1)):
        pairs = [
            [pixels.flatten(1).T.tolist() for pixels in pair]  # 64 pixels of one image and of the other
            for pair in zip(images, real, strict=True)
        ]
        expected = [sum(ciede2000(lab(a), lab(b)) for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in pairs]
        assert colour_error(images, real).tolist() == pytest.approx(expected, rel=2e-3)


def test_an_image_has_no_error_to_itself_and_white_is_100_from_black() -> None:
    black, white = (torch.full((1, 3, 8, 8), level, dtype=torch.uint8) for level in (0, 255))
    assert colour_error(random_images(0), random_images(0)).tolist() == [0.0, 0.0, 0.0]
    assert colour_error(black, white).tolist() == pytest.approx([100.0], abs=0.01)


def test_a_wrong_hue_costs_more_than_a_wrong_brightness_of_equal_squared_error() -> None:
    orange = torch.tensor([200, 120, 40], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 4, 4)
    hue, brightness = (
        orange + torch.tensor(shift, dtype=torch.uint8)[None, :, None, None] for shift in ((0, 26, 0), (15, 15, 15))
    )
    assert colour_error(hue, orange) > 1.5 * colour_error(brightness, orange)


def test_the_result_is_a_mean_over_images_for_any_batch_size_and_says_how_many(evaluation: Any) -> None:
    small, large = (evaluation.measure(ColourError(ColourErrorConfig()), batch_size=size) for size in (7, 60))
    assert small["colour_error"].value == pytest.approx(large["colour_error"].value, rel=1e-4)
    assert small["colour_error"].details["num_images"] == 60
    assert small["colour_error"].higher_is_better is False


def test_both_stages_that_measure_reconstructions_take_it(tmp_path) -> None:
    metric = {"colour": {"use": "colour_error"}}
    stages = ["train_tokenizer", {"use": "evaluate_tokenizer", "metrics": metric}, "tokenize", "train_generator"]
    project = Project(
        tmp_path,
        [*stages, "make_pairs", "post_train", "compare_decoders"],
        data={"use": "fluent_emoji", "image_size": 32, "train_limit": 80, "validation_limit": 36},
        compare_decoders={"tokenizer_metrics": metric},
    )
    results = project.run().results
    names = [f"compare_decoders/{decoder}_colour_error" for decoder in ("before", "sigma0.5")]
    for name in ["evaluate_tokenizer/colour_error", *names]:
        assert 0 < results[name].value < 100
        assert results[name].details["num_images"] == 36
