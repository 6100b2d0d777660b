"""The contract of every tokenizer with every quantizer; list a new one here to test it.

For tokenizers without the option `quantizer` see test_every_continuous.py.
"""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import Tensor

from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.registry import load_registry
from robustok_core.values.draws import Draws

REGISTRY = load_registry()
SMALL = {"width": 16, "depth": 1, "num_heads": 2}
TOKENIZERS = {
    "titok": {
        "image_size": 16,
        "patch_size": 4,
        "num_latent_tokens": 6,
        "encoder": SMALL,
        "decoder": SMALL,
        "inner_codes": 8,
        "pixel_decoder": {"channels": 4, "channel_multipliers": [1, 1, 1], "z_channels": 4, "norm_groups": 2},
    },
    "gigatok": {
        "image_size": 16,
        "channels": 8,
        "channel_multipliers": [1, 1, 2],
        "num_res_blocks": 1,
        "norm_groups": 4,
        "z_channels": 6,
        "num_latent_tokens": 8,
        "encoder": SMALL,
        "decoder": SMALL,
    },
    "conv_vq": {
        "image_size": 16,
        "channels": 8,
        "channel_multipliers": [1, 2],
        "num_res_blocks": 1,
        "norm_groups": 4,
        "z_channels": 6,
        "stem_patch": 2,
    },
    "maskgit_vq": {
        "image_size": 16,
        "channels": 8,
        "channel_multipliers": [1, 1, 2],
        "num_res_blocks": 1,
        "norm_groups": 4,
    },
    "open_magvit2": {
        "image_size": 16,
        "channels": 8,
        "channel_multipliers": [1, 1, 2],
        "num_res_blocks": 1,
        "norm_groups": 4,
    },
    "vit_vq": {
        "image_size": 16,
        "patch_size": 4,
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "num_latent_tokens": 16,
        "layer_scale": 0.5,
    },
}
#: Tokenizers whose tokens have no position in the image.
WITHOUT_GRID = {"titok", "gigatok"}
QUANTIZERS = {
    "vq": {"codebook_size": 16, "width": 4, "restart_threshold": 0.5, "restart_after": 2},
    "fsq": {"levels": [5, 4, 3]},
    "lfq": {"width": 4},
    "residual_vq": {"num_levels": 2, "level_size": 4, "width": 4},
    "sim_vq": {"codebook_size": 16, "width": 4},
    "projected_vq": {"codebook_size": 16, "width": 4, "table_width": 8},
    "ibq": {"codebook_size": 16, "width": 4},
}
QUANTIZING = [e.name for e in REGISTRY.entries("tokenizer") if "quantizer" in attrs.fields_dict(e.factory.Config)]
PAIRS = [(t, q) for t in QUANTIZING for q in REGISTRY.names("quantizer")]
every_pair = pytest.mark.parametrize(("tokenizer_name", "quantizer_name"), PAIRS)


def make(tokenizer_name: str, quantizer_name: str) -> Tokenizer:
    torch.manual_seed(0)
    quantizer = {"use": quantizer_name, **QUANTIZERS[quantizer_name]}
    table = {"use": tokenizer_name, **TOKENIZERS[tokenizer_name], "quantizer": quantizer}
    return REGISTRY.build("tokenizer", table)


def images(seed: int = 1) -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def state(tokenizer: Tokenizer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tokenizer.state_dict().items()}


def train(tokenizer: Tokenizer, steps: range) -> None:
    optimizer = torch.optim.SGD(tokenizer.parameters(), lr=0.1)
    tokenizer.train()
    for step in steps:
        torch.manual_seed(step)  # as the trainer does: drop-path
        optimizer.zero_grad()
        latents = tokenizer.encode(images(step))
        loss = (tokenizer.decode(latents) - images(step)).square().mean() + sum(latents.losses.values())
        loss.backward()
        assert loss.isfinite()
        optimizer.step()
        tokenizer.quantizer.after_step(Draws.for_rows(step, 4))
    tokenizer.eval()


def test_every_tokenizer_that_takes_a_quantizer_and_every_quantizer_is_tested_here():
    assert set(QUANTIZING) == set(TOKENIZERS)
    assert set(REGISTRY.names("quantizer")) == set(QUANTIZERS)


@every_pair
def test_latents_have_the_shapes_and_ranges_of_the_space(tokenizer_name, quantizer_name):
    tokenizer = make(tokenizer_name, quantizer_name).train()
    space, latents = tokenizer.space, tokenizer.encode(images())
    assert space.kind == "discrete"
    assert space.grid == (None if tokenizer_name in WITHOUT_GRID else (4, 4))
    assert (space.width, space.codebook_size) == (tokenizer.quantizer.width, tokenizer.quantizer.codebook_size)
    assert latents.vectors.shape == latents.features.shape == (4, space.num_tokens, space.width)
    assert latents.codes.shape == (4, space.num_tokens)
    assert latents.codes.dtype == torch.int64
    assert latents.codes.min() >= 0
    assert latents.codes.max() < space.codebook_size
    assert tokenizer.quantizer.codebook.shape == (space.codebook_size, space.width)
    assert tokenizer.decode(latents).shape == (4, 3, tokenizer.image_size, tokenizer.image_size)
    assert all(loss.shape == () and loss.isfinite() for loss in latents.losses.values())


@every_pair
def test_the_gradient_reaches_the_first_layer_and_the_last(tokenizer_name, quantizer_name):
    tokenizer = make(tokenizer_name, quantizer_name).train()
    tokenizer.decode(tokenizer.encode(images())).square().sum().backward()
    first = next(parameter for parameter in tokenizer.encoder.parameters() if parameter.ndim == 4)
    assert first.shape[1] in (3, 12), "the layer that reads pixels"
    assert first.grad.abs().sum() > 0
    assert tokenizer.last_layer.grad.abs().sum() > 0


@every_pair
def test_codes_alone_decode_to_the_same_image(tokenizer_name, quantizer_name):
    tokenizer = make(tokenizer_name, quantizer_name).eval()
    with torch.no_grad():
        latents = tokenizer.encode(images())
        looked_up = tokenizer.quantizer.lookup(latents.codes)
        assert torch.equal(looked_up, latents.vectors)
        assert torch.equal(looked_up, tokenizer.quantizer.codebook[latents.codes])
        assert torch.equal(tokenizer.decode(latents.evolve(vectors=None)), tokenizer.decode(latents))


@every_pair
def test_evaluation_has_no_losses_and_changes_no_state(tokenizer_name, quantizer_name):
    tokenizer = make(tokenizer_name, quantizer_name)
    train(tokenizer, range(1))
    before = state(tokenizer)
    first = tokenizer.encode(images(5))
    assert not first.losses
    tokenizer.quantizer.after_step(Draws.for_rows(0, 4))
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())
    assert torch.equal(tokenizer.decode(tokenizer.encode(images(5))), tokenizer.decode(first))


@every_pair
def test_an_image_is_encoded_the_same_in_any_batch(tokenizer_name, quantizer_name):
    tokenizer = make(tokenizer_name, quantizer_name).eval()
    whole = tokenizer.encode(images())
    alone = tokenizer.encode(images()[2:3])
    torch.testing.assert_close(alone.features, whole.features[2:3], atol=1e-5, rtol=1e-4)
    assert torch.equal(alone.codes, whole.codes[2:3])


@every_pair
def test_interrupted_and_resumed_training_is_bit_identical(tokenizer_name, quantizer_name):
    straight = make(tokenizer_name, quantizer_name)
    train(straight, range(4))
    stopped = make(tokenizer_name, quantizer_name)
    train(stopped, range(2))
    saved = state(stopped)
    with torch.device("meta"):  # as a stage loads it: no initial weights
        resumed = make(tokenizer_name, quantizer_name)
    assert all(value.is_meta for value in resumed.state_dict().values())
    resumed = resumed.to_empty(device="cpu")
    for tensor in (*resumed.parameters(), *resumed.buffers()):
        tensor.detach().fill_(float("nan") if tensor.is_floating_point() else 1)
    resumed.load_state_dict(saved)
    assert torch.equal(
        resumed.eval().decode(resumed.encode(images(9))), stopped.eval().decode(stopped.encode(images(9)))
    )
    train(resumed, range(2, 4))
    assert all(torch.equal(value, state(resumed)[name]) for name, value in state(straight).items())
    assert any(not torch.equal(value, saved[name]) for name, value in state(straight).items()), "it did train"


@every_pair
def test_codes_do_not_depend_on_the_precision_around_the_quantizer(tokenizer_name, quantizer_name):
    quantizer = make(tokenizer_name, quantizer_name).eval().quantizer
    z = torch.randn(2, 16, quantizer.width, generator=torch.Generator().manual_seed(0))
    plain = quantizer.quantize(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = quantizer.quantize(z)
        assert torch.equal(quantizer.lookup(mixed.codes), mixed.vectors)
    assert torch.equal(mixed.codes, plain.codes)
    assert torch.equal(mixed.vectors, plain.vectors)


@every_pair
def test_post_training_can_train_only_the_decoder(tokenizer_name, quantizer_name):
    tokenizer = make(tokenizer_name, quantizer_name).eval()
    vectors = tokenizer.encode(images()).vectors.detach()
    tokenizer.decode_vectors(vectors).square().sum().backward()
    behind = {id(parameter) for parameter in tokenizer.decoder.parameters()}
    for name, parameter in tokenizer.named_parameters():
        assert (id(parameter) in behind) == (parameter.grad is not None), name
