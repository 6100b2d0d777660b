"""Checks of generators and post-trainers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustok.testing.subject import CONTINUOUS, DISCRETE, TINY_TOKENIZER, Subject, module_checks, pictures, same
from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.samplers import with_sampler_options
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws, seeded
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace

_ROWS, _CLASSES = 4, 3
_GENERATOR = {"use": "maskgit", "width": 16, "depth": 1, "num_heads": 2}


def generator_checks(subject: Subject, *, space: LatentSpace | None = None) -> None:
    """Checks the loss and its gradient, samples (a function of label and draws), `keep`, and guidance."""
    space = _space_that_fits(subject) if space is None else space
    generator, loaded = module_checks(subject, space, _CLASSES, sketched=True)
    built_for = (getattr(generator, "space", None), getattr(generator, "num_classes", None))
    subject.require(built_for == (space, _CLASSES), "`space` and `num_classes` must be the constructor's arguments")
    unknown = set(generator.not_decayed) - dict(generator.named_parameters()).keys()
    subject.require(not unknown, f"`not_decayed` names {sorted(unknown)}, which are not parameters")
    if space.codebook_size is None:
        generator.observe(torch.full((space.width,), 0.5), torch.full((space.width,), 2.0))
        loaded.load_state_dict(generator.state_dict())
    _loss_checks(subject, generator, space)
    generator.eval(), loaded.eval()
    with torch.no_grad():
        _sample_checks(subject, generator, loaded, space)
        _guidance_checks(subject, generator, space)


def _space_that_fits(subject: Subject) -> LatentSpace:
    reasons = []
    for space in (DISCRETE, CONTINUOUS):
        try:
            subject.build(space, _CLASSES)
        except RobustokError as error:
            reasons.append(str(error))
        else:
            return space
    raise AssertionError(f"generator {subject.spec.name!r}: it refuses every latent space: {'; '.join(reasons)}")


def _real(space: LatentSpace) -> Latents:
    draws = Draws.for_rows(3, _ROWS)
    if space.codebook_size is None:
        return Latents(vectors=draws.normal(space.num_tokens, space.width))
    return Latents(codes=draws.integers(space.codebook_size, space.num_tokens))


def _labels() -> Tensor:
    return torch.arange(_ROWS) % _CLASSES


def _loss_checks(subject: Subject, generator: Generator, space: LatentSpace) -> None:
    generator.train()

    def total() -> Tensor:
        with seeded("robustok.testing", "dropout"):
            losses = generator.loss(_real(space), _labels(), draws=Draws.for_rows(0, _ROWS), progress=0.5)
        subject.require(isinstance(losses, Mapping) and bool(losses), "`loss` must return scalars by name")
        for name, value in losses.items():
            subject.scalar(value, f"the loss {name!r} of `loss`")
        return torch.stack(list(losses.values())).sum()

    value = total()
    subject.require(torch.equal(total(), value), "the same draws give different losses")
    subject.require(value.requires_grad, "its loss does not require a gradient")
    value.backward()
    reached = any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in generator.parameters())
    subject.require(reached, "no gradient flows from its loss to a parameter")


def _sample_checks(subject: Subject, generator: Generator, loaded: Generator, space: LatentSpace) -> None:
    labels, draws, none = _labels(), Draws.for_rows(0, _ROWS), Guidance()
    samples = generator.sample(labels, draws, guidance=none)
    subject.latents(samples, space, _ROWS, "sample")
    subject.require(
        same(generator.sample(labels, draws, guidance=none), samples),
        "the same draws give different samples; take random numbers only from `draws`",
    )
    subject.require(
        same(loaded.sample(labels, draws, guidance=none), samples),
        "the samples differ after its state dict is loaded into another build",
    )
    rows = slice(1, 3)
    alone = same(generator.sample(labels[rows], draws[rows], guidance=none), samples[rows])
    subject.require(alone, "a sample depends on the other samples of its batch")
    options = generator.Sampling()
    defaults = same(generator.sample(labels, draws, guidance=none, sampling=options), samples)
    subject.require(defaults, "`sampling=None` must give the same samples as the defaults of `Sampling`")
    real = _real(space)
    kept = generator.sample(labels, draws, guidance=none, keep=Keep(latents=real, sigma=1.0))
    subject.latents(kept, space, _ROWS, "sample with keep")
    if real.codes is not None and kept.codes is not None:
        subject.require(
            torch.equal(kept.codes, real.codes), "with sigma = 1 all codes of the real image must be retained"
        )
    elif real.vectors is not None and kept.vectors is not None:
        near = torch.allclose(kept.vectors, real.vectors, rtol=1e-2, atol=1e-2)
        subject.require(near, "with sigma = 1 the vectors of the real image must be retained")
    half = generator.sample(labels, draws, guidance=none, keep=Keep(latents=real, sigma=0.5))
    subject.latents(half, space, _ROWS, "sample with keep")


def _guidance_checks(subject: Subject, generator: Generator, space: LatentSpace) -> None:
    strong = Guidance(scale=2.0)
    try:
        generator.check_guidance(strong)
    except RobustokError:
        subject.require(
            not generator.knows_null_class,
            "`check_guidance` refuses guidance although the generator knows the null class",
        )
        return
    subject.require(
        generator.knows_null_class,
        "`check_guidance` allows guidance although the generator does not know the null class",
    )
    subject.latents(
        generator.sample(_labels(), Draws.for_rows(0, _ROWS), guidance=strong), space, _ROWS, "sample with guidance"
    )


def post_trainer_checks(
    subject: Subject, *, tokenizer: Mapping[str, Any] = TINY_TOKENIZER, generator: Mapping[str, Any] = _GENERATOR
) -> None:
    """Checks pairs in the tokenizer's space, reproducible from their draws, and the modules to train."""
    net = subject.other("tokenizer", tokenizer).eval()
    maker = subject.other("generator", generator, net.space, _CLASSES).eval()
    config, _ = with_sampler_options(subject.spec.config, type(maker), ())
    post_trainer = subject.spec.factory(config)
    images = pictures(_ROWS, net.image_size)
    with torch.no_grad():
        encoded = net.encode(images)
    clean = encoded.without_features()
    draws = Draws.for_rows(0, _ROWS)
    for sigma in (0.0, 0.5, 1.0):
        real = LatentBatch(latents=clean, labels=_labels(), indices=torch.arange(_ROWS))
        pair = post_trainer.pair(net, maker, real, draws=draws, sigma=sigma)
        subject.latents(pair, net.space, _ROWS, "pair")
        again = post_trainer.pair(net, maker, real, draws=draws, sigma=sigma)
        subject.require(same(pair, again), "the same draws give different pairs; take random numbers only from `draws`")
    post_trainer.trained(net)
