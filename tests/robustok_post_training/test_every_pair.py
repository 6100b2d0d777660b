"""Post-training with every registered tokenizer and every generator of an equal space: it knows only the interfaces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustok_core import Draws, LatentBatch, Latents, load_registry
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.values.images import from_uint8, to_uint8
from robustok_stages.post_training.training_step import DecoderTask
from robustok_toolkit.pair_files import PairBatch
from robustok_training.optimizer import OptimizerConfig

REGISTRY = load_registry()
SIZE = 16
VIT = {"patch_size": 4, "width": 16, "depth": 1, "num_heads": 2}
VQ = {"use": "vq", "codebook_size": 16, "width": 4}
LEVELS = {"channels": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1, "norm_groups": 4}
CONV = {**LEVELS, "z_channels": 6, "stem_patch": 2}
SMALL = {"width": 16, "depth": 1, "num_heads": 2}
TOKENIZERS = {
    "conv_vq": {**CONV, "quantizer": VQ},
    "kl_vae": {**CONV, "width": 4},
    "mae_tok": {**VIT, "num_latent_tokens": 6, "latent_width": 4, "layer_scale": 0.5},
    "rae": {
        "encoder": "test_vit",
        "weights": "random",
        "encoder_image_size": 32,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    },
    "diffusers_vae": {},
    "gigatok": {
        "channels": 8,
        "channel_multipliers": [1, 1, 2],
        "num_res_blocks": 1,
        "norm_groups": 4,
        "z_channels": 6,
        "num_latent_tokens": 8,
        "encoder": SMALL,
        "decoder": SMALL,
        "quantizer": VQ,
    },
    "titok": {
        "patch_size": 4,
        "num_latent_tokens": 6,
        "encoder": SMALL,
        "decoder": SMALL,
        "output": "pixels",
        "quantizer": VQ,
    },
    "maskgit_vq": {**LEVELS, "quantizer": VQ},
    "open_magvit2": {**LEVELS, "quantizer": {"use": "lfq", "width": 4}},
    "vit_kl": {"patch_size": 4, "latent_width": 4, "encoder": SMALL, "decoder": SMALL},
    "vit_vq": {**VIT, "num_latent_tokens": 16, "layer_scale": 0.5, "quantizer": VQ},
}
GENERATORS = {
    "rar": {**SMALL},
    "llamagen_gpt": {**SMALL},
    "maskgit": {**SMALL},
    "flow_transformer": {**SMALL},
    "dit": {**SMALL},
}
LABELS = torch.tensor([0, 1, 2, 0])


def tokenizer(name: str) -> Tokenizer:
    torch.manual_seed(0)
    return REGISTRY.build("tokenizer", {"use": name, "image_size": SIZE, **TOKENIZERS[name]}).eval()


def generator(name: str, space) -> Generator:
    torch.manual_seed(1)
    positions = {"positions": "learned"} if name == "llamagen_gpt" and space.grid is None else {}
    made = REGISTRY.build("generator", {"use": name, **GENERATORS[name], **positions}, space, 3).eval()
    for parameter in made.parameters():  # published initialisations set the last layers to zero; avoid that
        torch.nn.init.normal_(parameter, std=0.2)
    return made


DISCRETE = {"conv_vq", "gigatok", "maskgit_vq", "open_magvit2", "titok", "vit_vq", "rar", "llamagen_gpt", "maskgit"}


@pytest.fixture(scope="module", autouse=True)
def saved_autoencoder(tmp_path_factory) -> None:
    """An AutoencoderKL with random weights, as diffusers saves it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(**blocks, block_out_channels=(8, 16), norm_num_groups=4).save_pretrained(folder)
    TOKENIZERS["diffusers_vae"]["source"] = str(folder)


PAIRS = [(t, g) for t in TOKENIZERS for g in GENERATORS if (t in DISCRETE) == (g in DISCRETE)]
every_pair = pytest.mark.parametrize(("tokenizer_name", "generator_name"), PAIRS)


def test_every_registered_tokenizer_and_generator_is_tested_here():
    assert set(TOKENIZERS) == set(REGISTRY.names("tokenizer"))
    assert set(GENERATORS) == set(REGISTRY.names("generator"))


def images() -> Tensor:
    pictures = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    return from_uint8((pictures * 255).to(torch.uint8))


def held(latents: Latents) -> Tensor:
    return latents.codes if latents.codes is not None else latents.vectors


def encoded(made: Tokenizer, pictures: Tensor) -> Latents:
    with torch.no_grad():
        latents = made.encode(pictures)
    return Latents(codes=latents.codes) if latents.codes is not None else Latents(vectors=latents.vectors)


def pair(post_trainer: PostTrainer, made: Tokenizer, drawn: Generator, sigma: float) -> Latents:
    real = LatentBatch(latents=encoded(made, images()), labels=LABELS, indices=torch.arange(4))
    return post_trainer.pair(made, drawn, real, draws=Draws.for_rows(5, 4), sigma=sigma)


@every_pair
def test_sigma_1_gives_the_latents_and_the_reconstruction_and_a_lower_one_does_not(tokenizer_name, generator_name):
    made = tokenizer(tokenizer_name)
    drawn = generator(generator_name, made.space)
    direct = REGISTRY.build("post_trainer", {"use": "decoder", "pairs": "latents"})
    real = held(encoded(made, images()))
    assert torch.equal(held(pair(direct, made, drawn, 1.0)), real)
    assert not torch.equal(held(pair(direct, made, drawn, 0.3)), real)
    through = REGISTRY.build("post_trainer", {"use": "decoder", "pairs": "images"})
    with torch.no_grad():
        picture = from_uint8(to_uint8(made.decode(encoded(made, images()))))
    assert torch.equal(held(pair(through, made, drawn, 1.0)), held(encoded(made, picture)))


@every_pair
def test_a_step_changes_the_decoder_and_nothing_in_front_of_it(tokenizer_name, generator_name):
    made = tokenizer(tokenizer_name)
    drawn = generator(generator_name, made.space)
    post_trainer = REGISTRY.build("post_trainer", {"use": "decoder"})
    latents = pair(post_trainer, made, drawn, 0.5)
    before, front = {n: v.clone() for n, v in made.state_dict().items()}, latent_fingerprint(made)
    losses = {"l2": REGISTRY.build("loss", {"use": "reconstruction"})}
    task = DecoderTask(made, post_trainer.trained(made), losses, OptimizerConfig())
    step = task.trained_modules[0].module.train()
    batch = PairBatch(images=images(), labels=LABELS, indices=torch.arange(4), latents=latents)
    optimizer = torch.optim.SGD([p for p in step.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        loss, _, _ = step(batch, Draws.for_rows(6, 4), 0.0, {})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert latent_fingerprint(made) == front
    behind = {id(p) for p in made.decoder.parameters()}
    changed = {n for n, v in made.state_dict().items() if not torch.equal(v, before[n])}
    assert changed
    assert all(id(p) in behind for n, p in made.named_parameters() if n in changed)
