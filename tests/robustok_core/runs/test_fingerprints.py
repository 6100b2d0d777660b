"""The hash of the weights before the decoder."""

from __future__ import annotations

import pytest
import torch

from robustok_core.runs.fingerprints import latent_fingerprint


@pytest.fixture
def tokenizer(registry):
    small = {"use": "conv_vq", "image_size": 16, "channels": 8, "norm_groups": 4, "z_channels": 8}
    quantizer = {"use": "vq", "codebook_size": 16, "width": 4}
    return registry.build("tokenizer", {**small, "quantizer": quantizer})


def test_it_changes_with_every_weight_before_the_decoder_and_with_none_of_the_decoder(tokenizer):
    whole = latent_fingerprint(tokenizer)
    behind = {id(weight) for weight in tokenizer.decoder.parameters()}
    with torch.no_grad():
        for name, weight in tokenizer.named_parameters():
            kept = weight.flatten()[0].clone()
            weight.view(-1)[0] = kept + 1.0
            assert (latent_fingerprint(tokenizer) == whole) == (id(weight) in behind), name
            weight.view(-1)[0] = kept
    assert latent_fingerprint(tokenizer) == whole


def test_training_only_modules_do_not_count(registry):
    table = {"use": "mae_tok", "image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
    tokenizer = registry.build("tokenizer", {**table, "hog": {"width": 16, "depth": 1, "num_heads": 2}})
    whole = latent_fingerprint(tokenizer)
    with torch.no_grad():
        for weight in tokenizer.targets.parameters():
            weight.add_(1.0)
        assert latent_fingerprint(tokenizer) == whole
        tokenizer.quant_conv.weight.add_(1.0)
    assert latent_fingerprint(tokenizer) != whole


def test_averaging_unchanged_weights_preserves_the_fingerprint_even_of_negative_zero(tokenizer):
    with torch.no_grad():
        next(tokenizer.encoder.parameters()).view(-1)[0] = -0.0
    average = torch.optim.swa_utils.AveragedModel(
        tokenizer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    for _ in range(3):
        average.update_parameters(tokenizer)
    assert latent_fingerprint(average.module) == latent_fingerprint(tokenizer)
