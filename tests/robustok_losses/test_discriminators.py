"""The two discriminators' architectures."""

from __future__ import annotations

import copy

import pytest
import torch

from robustok_core.errors import ProblemsError
from robustok_losses.feature_heads import FeatureHeads, HeadsConfig, LocalBatchNorm
from robustok_losses.frozen import held_still
from robustok_losses.patch_discriminator import PatchConfig, PatchDiscriminator


def heads(tiny, **options) -> FeatureHeads:
    return tiny.seeded(0, lambda: FeatureHeads(HeadsConfig(features=tiny.features(), **options)))


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_five_heads_of_width_384_have_the_published_number_of_parameters(tiny):
    with torch.device("meta"):
        discriminator = FeatureHeads(HeadsConfig(features=tiny.features(widths=(384,) * 5)))

    assert count(discriminator) == 7_386_245


def test_a_patch_discriminator_of_default_size_has_the_parameters_of_patchgan():
    # Isola et al.: convolutions 3-64-128-256-512-1 of 4 x 4, biases where no norm follows, norms with 2 per channel
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    assert count(PatchDiscriminator(PatchConfig())) == convolutions + 64 + 1 + 2 * (128 + 256 + 512)


def test_a_patch_sees_70_pixels():
    network = PatchDiscriminator(PatchConfig(width=2, norm="none"))
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (logits,) = network(images)
    side = 128 // 8 - 2

    (gradient,) = torch.autograd.grad(logits.reshape(side, side)[side // 2, side // 2], images)

    seen = gradient.abs().sum(dim=(0, 1)) > 0
    assert (seen.any(dim=0).sum().item(), seen.any(dim=1).sum().item()) == (70, 70)


@pytest.mark.parametrize("norm", ["group", "none"])
def test_a_patch_discriminator_scores_each_image_independently(tiny, norm):
    network = PatchDiscriminator(PatchConfig(layers=2, width=8, norm=norm))
    images = tiny.make_step().batch.images

    (together,) = network(images)
    alone = torch.cat([network(image[None])[0] for image in images])

    torch.testing.assert_close(together, alone)
    assert PatchConfig(layers=2).smallest_image == 12
    assert network(images[:, :, :12, :12])[0].shape == (8, 1)


@pytest.mark.parametrize(("batch", "groups"), [(8, [8]), (16, [8, 8]), (12, [6, 6]), (9, [5, 4]), (3, [3]), (1, [1])])
def test_local_batch_norm_standardises_groups_of_neighbours(batch, groups):
    x = torch.randn(batch, 5, 7, generator=torch.Generator().manual_seed(0)) * 3 + 2
    norm = LocalBatchNorm(5, virtual_batch=8)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)

    expected = [
        (part - part.mean(dim=(0, 2), keepdim=True))
        / (part.var(dim=(0, 2), keepdim=True, unbiased=False) + 1e-6).sqrt()
        for part in x.split(groups)
    ]

    torch.testing.assert_close(norm(x), torch.cat(expected) * norm.weight[:, None] + norm.bias[:, None])


def test_heads_give_the_same_logits_however_a_batch_is_split_between_virtual_batches(tiny):
    network = heads(tiny, virtual_batch=2).eval()
    images = tiny.make_step().batch.images

    whole = network(images)
    parts = [network(images[:2]), network(images[2:6]), network(images[6:])]

    for number, logits in enumerate(whole):
        torch.testing.assert_close(logits, torch.cat([part[number] for part in parts]))
    assert [logits.shape for logits in whole] == [(8, 64), (8, 16)]


def test_every_convolution_of_a_head_has_spectral_norm_1(tiny):
    network = heads(tiny).train()
    images = tiny.make_step().batch.images
    for _ in range(60):  # one step of the power iteration each
        network(images)
    network.eval()

    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv1d)]

    norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() for layer in convolutions]
    assert norms == pytest.approx([1.0] * 6, abs=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="autocast leaves matrix-vector products alone on a CPU")
def test_autocast_does_not_change_the_spectral_norm(tiny):
    exact = heads(tiny).train().cuda()
    images = tiny.make_step().batch.images.cuda()
    half = copy.deepcopy(exact)

    exact(images)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        half(images)

    for name, buffer in exact.named_buffers():
        torch.testing.assert_close(half.get_buffer(name), buffer)


def test_an_even_kernel_is_refused(registry):
    with pytest.raises(ProblemsError, match="must be odd"):
        registry.spec("loss", {"use": "adversarial", "heads": {"kernel": 8}})


def test_held_still_a_patch_discriminator_is_the_function_that_its_own_training_sees():
    trained = PatchDiscriminator(PatchConfig(width=4, layers=2, norm="batch"))
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = copy.deepcopy(trained)
    (expected,) = other(images)
    before = {name: value.clone() for name, value in trained.state_dict().items()}

    with held_still(trained):
        (logits,) = trained(images)

    assert torch.equal(logits, expected)
    assert not logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    trained(images)  # averages again, as in training
    for name, value in other.state_dict().items():
        assert torch.equal(trained.state_dict()[name], value)
