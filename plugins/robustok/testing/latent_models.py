"""What generators and post-trainers promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
    """A loss that trains it; samples that hang on label and row, keep what they must, and are guided if they can."""
    space = _space_that_fits(subject) if space is None else space
    generator, loaded = module_checks(subject, space, _CLASSES, sketched=True)
    about = (getattr(generator, "space", None), getattr(generator, "num_classes", None))
    subject.require(about == (space, _CLASSES), "`space` and `num_classes` must be those that it was built with")
    unknown = set(generator.not_decayed) - dict(generator.named_parameters()).keys()
    subject.require(not unknown, f"`not_decayed` names {sorted(unknown)}, and it has no such parameter")
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
            found = generator.loss(_real(space), _labels(), draws=Draws.for_rows(0, _ROWS), progress=0.5)
        subject.require(isinstance(found, Mapping) and bool(found), "`loss` must return scalars by name")
        for name, value in found.items():
            subject.scalar(value, f"the loss {name!r}")
        return torch.stack(list(found.values())).sum()

    value = total()
    subject.require(torch.equal(total(), value), "the same draws give another loss")
    subject.require(value.requires_grad, "its loss has no gradient")
    value.backward()
    reached = any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in generator.parameters())
    subject.require(reached, "no gradient of its loss reaches a parameter")


def _sample_checks(subject: Subject, generator: Generator, loaded: Generator, space: LatentSpace) -> None:
    labels, draws, none = _labels(), Draws.for_rows(0, _ROWS), Guidance()
    samples = generator.sample(labels, draws, guidance=none)
    subject.latents(samples, space, _ROWS, "sample")
    subject.require(
        same(generator.sample(labels, draws, guidance=none), samples),
        "the same draws give other samples; take random numbers from `draws` alone",
    )
    subject.require(
        same(loaded.sample(labels, draws, guidance=none), samples),
        "with its state dict in another one, the samples differ",
    )
    some = slice(1, 3)
    alone = same(generator.sample(labels[some], draws[some], guidance=none), samples[some])
    subject.require(alone, "a sample depends on which others are in its batch")
    options = generator.Sampling()
    defaults = same(generator.sample(labels, draws, guidance=none, sampling=options), samples)
    subject.require(defaults, "`sampling=None` is not the same as the defaults of `Sampling`")
    real = _real(space)
    kept = generator.sample(labels, draws, guidance=none, keep=Keep(latents=real, sigma=1.0))
    subject.latents(kept, space, _ROWS, "sample with keep")
    if real.codes is not None and kept.codes is not None:
        subject.require(torch.equal(kept.codes, real.codes), "with sigma = 1 all codes of the real image must be kept")
    elif real.vectors is not None and kept.vectors is not None:
        near = torch.allclose(kept.vectors, real.vectors, rtol=1e-2, atol=1e-2)
        subject.require(near, "with sigma = 1 the vectors of the real image must be kept")
    half = generator.sample(labels, draws, guidance=none, keep=Keep(latents=real, sigma=0.5))
    subject.latents(half, space, _ROWS, "sample with keep")


def _guidance_checks(subject: Subject, generator: Generator, space: LatentSpace) -> None:
    strong = Guidance(scale=2.0)
    try:
        generator.check_guidance(strong)
    except RobustokError:
        subject.require(
            not generator.knows_null_class, "`check_guidance` refuses guidance, and it knows the null class"
        )
        return
    subject.require(generator.knows_null_class, "`check_guidance` allows guidance without the null class")
    subject.latents(
        generator.sample(_labels(), Draws.for_rows(0, _ROWS), guidance=strong), space, _ROWS, "sample with guidance"
    )


def post_trainer_checks(
    subject: Subject, *, tokenizer: Mapping[str, Any] = TINY_TOKENIZER, generator: Mapping[str, Any] = _GENERATOR
) -> None:
    """Pairs in the tokenizer's space, the same for the same draws; and parts of the tokenizer to train."""
    net = subject.other("tokenizer", tokenizer).eval()
    maker = subject.other("generator", generator, net.space, _CLASSES).eval()
    config, _ = with_sampler_options(subject.spec.config, type(maker), ())
    post_trainer = subject.spec.factory(config)
    images = pictures(_ROWS, net.image_size)
    with torch.no_grad():
        encoded = net.encode(images)
    held = encoded.without_features()
    draws = Draws.for_rows(0, _ROWS)
    for sigma in (0.0, 0.5, 1.0):
        real = LatentBatch(latents=held, labels=_labels(), indices=torch.arange(_ROWS))
        pair = post_trainer.pair(net, maker, real, draws=draws, sigma=sigma)
        subject.latents(pair, net.space, _ROWS, "pair")
        again = post_trainer.pair(net, maker, real, draws=draws, sigma=sigma)
        subject.require(same(pair, again), "the same draws give another pair; take random numbers from `draws` alone")
    parts = list(post_trainer.trained(net))
    modules = bool(parts) and all(isinstance(part, nn.Module) for part in parts)
    subject.require(modules, "`trained` must name modules of the tokenizer, at least one")
    own = {id(parameter) for parameter in net.parameters()}
    foreign = any(id(parameter) not in own for part in parts for parameter in part.parameters())
    subject.require(not foreign, "`trained` gives parameters that are not the tokenizer's")
