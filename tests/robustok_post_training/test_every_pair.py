"""Post-training with every registered tokenizer and every generator of an equal space: it knows only the interfaces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from every_model import PAIRS, generator_table, save_autoencoder, tokenizer_table
from project import IMAGE_SIZE
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
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> Path:
    """A folder of diffusers."""
    folder = tmp_path_factory.mktemp("vae")
    save_autoencoder(folder)
    return folder


@pytest.fixture
def made(autoencoder, tokenizer_name) -> Tokenizer:
    torch.manual_seed(0)
    return REGISTRY.build("tokenizer", tokenizer_table(tokenizer_name, autoencoder)).eval()


@pytest.fixture
def drawn(made, generator_name) -> Generator:
    torch.manual_seed(1)
    built = REGISTRY.build("generator", generator_table(generator_name, made.space), made.space, 3).eval()
    for parameter in built.parameters():  # published initialisations set the last layers to zero; avoid that
        torch.nn.init.normal_(parameter, std=0.2)
    return built


every_pair = pytest.mark.parametrize(("tokenizer_name", "generator_name"), PAIRS)


def images() -> Tensor:
    pictures = torch.rand(4, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(2))
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
def test_sigma_1_gives_the_latents_and_the_reconstruction_and_a_lower_one_does_not(made, drawn):
    direct = REGISTRY.build("post_trainer", {"use": "decoder", "pairs": "latents"})
    real = held(encoded(made, images()))
    assert torch.equal(held(pair(direct, made, drawn, 1.0)), real)
    assert not torch.equal(held(pair(direct, made, drawn, 0.3)), real)
    through = REGISTRY.build("post_trainer", {"use": "decoder", "pairs": "images"})
    with torch.no_grad():
        picture = from_uint8(to_uint8(made.decode(encoded(made, images()))))
    assert torch.equal(held(pair(through, made, drawn, 1.0)), held(encoded(made, picture)))


@every_pair
def test_a_step_changes_the_decoder_and_nothing_in_front_of_it(made, drawn):
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
