from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from robustok_core import Registry, RobustokError
from robustok_core.runs.conditions import Conditions, Number, why_not
from robustok_core.values.images import to_uint8
from robustok_metrics.psnr import PSNR, PSNRConfig, psnr
from robustok_metrics.ssim import SSIM, SSIMConfig, ssim


def grey(*levels: int) -> Tensor:
    """One flat image per level, uint8 (B, 3, 16, 16)."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 16, 16)


def test_psnr_of_an_error_of_k_levels_is_20_log_255_over_k() -> None:
    expected = [20 * math.log10(255), 20 * math.log10(255 / 10), 0.0]
    assert psnr(grey(101, 110, 0), grey(100, 100, 255)).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_of_an_exact_image_is_that_of_a_single_value_off_by_one() -> None:
    real = grey(100, 100)
    almost = real.clone()
    almost[1, 0, 3, 3] += 1
    exact, off_by_one = psnr(almost, real).tolist()
    assert exact == pytest.approx(10 * math.log10(255**2 * 3 * 16 * 16), abs=1e-4)
    assert exact == pytest.approx(off_by_one, abs=1e-3)


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    a, b, c1 = 50.0, 200.0, (0.01 * 255) ** 2
    similarities = ssim(grey(50, 77), grey(200, 77)).tolist()
    assert similarities == pytest.approx([(2 * a * b + c1) / (a * a + b * b + c1), 1.0], abs=1e-6)


def test_the_ssim_of_an_image_with_itself_is_1() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (4, 3, 64, 64), generator=generator, dtype=torch.uint8)
    for images in (noise, noise // 64 + 250):
        assert ssim(images, images).tolist() == pytest.approx([1.0] * 4, abs=1e-12)


def test_ssim_is_that_of_an_independent_implementation(photos: Tensor) -> None:
    """In which windows beyond the border do not count, as in the paper's."""
    from skimage.metrics import structural_similarity

    blurred = torch.nn.functional.avg_pool2d(photos.float(), 3, stride=1, padding=1).round().to(torch.uint8)
    ours = ssim(blurred, photos)
    options = {"channel_axis": 0, "data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
    for number, similarity in enumerate(ours.tolist()):
        pair = blurred[number].numpy(), photos[number].numpy()
        assert similarity == pytest.approx(structural_similarity(*pair, sigma=1.5, **options), abs=1e-9)
    assert ours.max() < 0.95


@pytest.fixture
def photos(registry: Registry) -> Tensor:
    """Ten small images, uint8 (10, 3, 32, 32), with black borders, which are alike whatever is done to the rest."""
    return to_uint8(registry.build("dataset", {"use": "fashion_mnist"}).validation.load(range(10)).images)


def test_the_ssim_of_earlier_versions_is_not_compared(evaluation: Any) -> None:
    """It counted windows beyond the border, too; some of its results have no details."""
    now = evaluation.measure(SSIM(SSIMConfig()))["ssim"]
    for details in ({}, {"num_images": now.details["num_images"]}):
        old = attrs.evolve(now, details=details)
        numbers = [Number(Conditions(), "evaluate_tokenizer/ssim", result) for result in (old, now)]
        reason = why_not(numbers, ["old", "new"])
        assert reason == "different SSIM windows (old: as in earlier versions, new: inside the image)"
        assert why_not([numbers[1], numbers[1]], ["one", "two"]) is None
        assert why_not([numbers[0], numbers[0]], ["one", "two"]) is None


def test_ssim_of_unrelated_noise_is_near_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randint(0, 256, (2, 4, 3, 64, 64), generator=generator, dtype=torch.uint8)
    assert ssim(one, two).abs().max() < 0.1


def test_results_are_means_over_images_for_any_batch_size(evaluation: Any) -> None:
    small, large = (evaluation.measure(PSNR(PSNRConfig()), SSIM(SSIMConfig()), batch_size=size) for size in (7, 60))
    assert evaluation.numbers(small) == pytest.approx(evaluation.numbers(large), rel=1e-4)
    assert all(result.higher_is_better for result in small.values())
    step = evaluation.step(torch.arange(60))
    error = ((step.images - step.batch.images) * 127.5).square().mean(dim=(1, 2, 3))
    assert large["psnr"].value == pytest.approx((10 * torch.log10(255**2 / error)).mean().item(), rel=1e-4)


def test_ssim_refuses_images_smaller_than_its_window(evaluation: Any) -> None:
    class Small:
        image_size = 8

    evaluation.tokenizer = Small()
    with pytest.raises(RobustokError, match="windows of 11 pixels, but the images have 8"):
        evaluation.start(SSIM(SSIMConfig()))
