"""The contract of every tokenizer without a quantizer; list a new one here to test it."""

from __future__ import annotations

import functools

import attrs
import pytest
import torch
from torch import Tensor

from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents

REGISTRY = load_registry()
TOKENIZERS = {
    "kl_vae": {
        "image_size": 16,
        "channels": 8,
        "channel_multipliers": [1, 2],
        "num_res_blocks": 1,
        "norm_groups": 4,
        "z_channels": 6,
        "stem_patch": 2,
        "width": 4,
    },
    "mae_tok": {
        "image_size": 16,
        "patch_size": 4,
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "num_latent_tokens": 6,
        "latent_width": 4,
        "layer_scale": 0.5,
    },
    "vit_kl": {
        "image_size": 16,
        "patch_size": 4,
        "latent_width": 4,
        "encoder": {"width": 16, "depth": 1, "num_heads": 2},
        "decoder": {"width": 16, "depth": 1, "num_heads": 2},
    },
    "rae": {
        "image_size": 16,
        "encoder": "test_vit",
        "weights": "random",
        "encoder_image_size": 32,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    },
    "diffusers_vae": {"image_size": 16},
}
#: Tokenizers whose encoder is not trained.
FROZEN = {"rae", "rae in the style mae"}
TOKENIZERS["rae in the style mae"] = TOKENIZERS["rae"] | {"use": "rae", "decoder_style": "mae"}
TOKENIZERS["vit_kl in the style detok"] = TOKENIZERS["vit_kl"] | {"use": "vit_kl", "style": "detok"}
TOKENIZERS["mae_tok with a soft codebook"] = TOKENIZERS["mae_tok"] | {
    "use": "mae_tok",
    "soft_codebook": {"num_tables": 2, "size": 16},
}
every = pytest.mark.parametrize("name", TOKENIZERS)
PERTURBATIONS = [{"use": "gaussian"}, {"use": "gaussian", "scale": "relative"}, {"use": "interpolate", "tau": 0.3}]


@pytest.fixture(scope="module", autouse=True)
def saved_autoencoder(tmp_path_factory) -> None:
    """An AutoencoderKL with random weights, as diffusers saves it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        scaling_factor=0.5,
    ).save_pretrained(folder)
    TOKENIZERS["diffusers_vae"]["source"] = str(folder)


def make(name: str) -> Tokenizer:
    torch.manual_seed(0)
    return REGISTRY.build("tokenizer", {"use": name, **TOKENIZERS[name]})


def images(tokenizer: Tokenizer, seed: int = 1) -> Tensor:
    size = tokenizer.image_size
    return torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def state(tokenizer: Tokenizer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tokenizer.state_dict().items()}


def perturbed(latents: Latents, table: dict[str, object], seed: int = 0) -> Latents:
    perturbation = REGISTRY.build("perturbation", table)
    return perturbation.perturb(latents, None, draws=Draws.for_rows(seed, len(latents)), progress=0.5)[0]


def train(tokenizer: Tokenizer, steps: range, table=PERTURBATIONS[0], pictures=images, optimizer=None) -> None:
    trained = [parameter for parameter in tokenizer.parameters() if parameter.requires_grad]
    optimizer = (optimizer or functools.partial(torch.optim.SGD, lr=0.05))(trained)
    tokenizer.train()
    for step in steps:
        torch.manual_seed(step)  # as the trainer does: samples, masks, drop-path
        optimizer.zero_grad()
        latents = tokenizer.encode(pictures(tokenizer, step))
        drawn = tokenizer.decode(perturbed(latents, table, step))
        loss = (drawn - pictures(tokenizer, step)).square().mean() + sum(latents.losses.values())
        loss.backward()
        assert loss.isfinite()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    tokenizer.eval()


def behind(tokenizer: Tokenizer) -> set[int]:
    return {id(parameter) for parameter in tokenizer.decoder.parameters()}


def test_every_tokenizer_without_a_quantizer_is_tested_here():
    continuous = {
        e.name for e in REGISTRY.entries("tokenizer") if "quantizer" not in attrs.fields_dict(e.factory.Config)
    }
    assert continuous == {table.get("use", name) for name, table in TOKENIZERS.items()}


@every
def test_latents_have_the_shapes_of_the_space(name):
    tokenizer = make(name).train()
    space, latents = tokenizer.space, tokenizer.encode(images(tokenizer))
    assert (space.kind, tokenizer.quantizer, latents.codes) == ("continuous", None, None)
    assert latents.vectors.shape == latents.features.shape == (4, space.num_tokens, space.width)
    assert tokenizer.decode(latents).shape == (4, 3, tokenizer.image_size, tokenizer.image_size)
    assert all(loss.shape == () and loss.isfinite() for loss in latents.losses.values())
    with pytest.raises(ValueError, match="vectors only"):
        tokenizer.decode(Latents(codes=torch.zeros(1, space.num_tokens, dtype=torch.int64)))


@every
@pytest.mark.parametrize("table", PERTURBATIONS, ids=str)
def test_the_gradient_passes_through_a_perturbation_to_the_first_layer_and_the_last(name, table):
    tokenizer = make(name).train()
    tokenizer.decode(perturbed(tokenizer.encode(images(tokenizer)), table)).square().sum().backward()
    assert tokenizer.last_layer.grad.abs().sum() > 0
    first = next(parameter for parameter in tokenizer.encoder.parameters() if parameter.ndim == 4)
    assert first.shape[1] in (3, 12), "the layer that reads pixels"
    if name in FROZEN:
        assert not first.requires_grad
    else:
        assert first.grad.abs().sum() > 0


@every
def test_evaluation_uses_no_random_numbers_has_no_losses_and_changes_no_state(name):
    tokenizer = make(name)
    train(tokenizer, range(1))
    before = state(tokenizer)
    first = tokenizer.encode(images(tokenizer, 5))
    torch.manual_seed(99)
    second = tokenizer.encode(images(tokenizer, 5))
    assert not first.losses
    assert torch.equal(first.vectors, second.vectors)
    assert torch.equal(tokenizer.decode(first), tokenizer.decode(second))
    assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())


@every
def test_an_image_is_encoded_and_decoded_the_same_in_any_batch(name):
    tokenizer = make(name).eval()
    whole = tokenizer.encode(images(tokenizer))
    alone = tokenizer.encode(images(tokenizer)[2:3])
    torch.testing.assert_close(alone.vectors, whole.vectors[2:3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tokenizer.decode(whole)[2:3], tokenizer.decode(whole[2:3]), atol=1e-5, rtol=1e-4)


@every
def test_interrupted_and_resumed_training_is_bit_identical(name):
    straight = make(name)
    train(straight, range(4))
    stopped = make(name)
    train(stopped, range(2))
    saved = state(stopped)
    with torch.device("meta"):  # as a stage loads it: no initial weights
        resumed = make(name)
    assert all(value.is_meta for value in resumed.state_dict().values())
    resumed = resumed.to_empty(device="cpu")
    for tensor in (*resumed.parameters(), *resumed.buffers()):
        tensor.detach().fill_(float("nan") if tensor.is_floating_point() else 1)
    resumed.load_state_dict(saved)
    pictures = images(stopped, 9)
    assert torch.equal(resumed.eval().decode(resumed.encode(pictures)), stopped.decode(stopped.encode(pictures)))
    train(resumed, range(2, 4))
    assert all(torch.equal(value, state(resumed)[key]) for key, value in state(straight).items())
    assert any(not torch.equal(value, saved[key]) for key, value in state(straight).items()), "it did train"


@every
def test_post_training_can_train_only_the_decoder(name):
    tokenizer = make(name).eval()
    vectors = tokenizer.encode(images(tokenizer)).vectors.detach()
    tokenizer.decode_vectors(vectors).square().sum().backward()
    for key, parameter in tokenizer.named_parameters():
        assert (id(parameter) in behind(tokenizer)) == (parameter.grad is not None), key
    assert id(tokenizer.last_layer) in behind(tokenizer)


@every
def test_the_fingerprint_of_the_latents_depends_on_the_encoder_and_not_on_the_decoder(name):
    tokenizer = make(name)
    before = latent_fingerprint(tokenizer)
    with torch.no_grad():
        for parameter in tokenizer.decoder.parameters():
            parameter.add_(1.0)
        assert latent_fingerprint(tokenizer) == before
        in_front = next(p for p in tokenizer.parameters() if id(p) not in behind(tokenizer))
        in_front.add_(1.0)
        assert latent_fingerprint(tokenizer) != before


@every
def test_a_short_training_with_a_perturbation_learns_latents_that_distinguish_four_images(name):
    table = PERTURBATIONS[list(TOKENIZERS).index(name) % len(PERTURBATIONS)]
    brightness = torch.tensor([-1.0, -0.4, 0.4, 1.0])[:, None, None, None]

    def pictures(tokenizer: Tokenizer, seed: int = 0) -> Tensor:
        return brightness.expand(4, 3, tokenizer.image_size, tokenizer.image_size)

    @torch.no_grad()
    def error() -> float:
        drawn = tokenizer.decode(tokenizer.encode(pictures(tokenizer)))
        return (drawn - brightness).square().mean().item()

    tokenizer, errors = make(name), []
    for first in (0, 20, 40):
        train(tokenizer, range(first, first + 20), table, pictures, functools.partial(torch.optim.Adam, lr=1e-2))
        errors.append(error())
    # At this learning rate single steps can make it worse for a while.
    assert min(errors) < 0.5 * brightness.square().mean(), "at most half the error of the mean of the four"
