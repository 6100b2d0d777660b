"""What a tokenizer or generator makes of fixed inputs: two with the same outputs are the same model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.draws import Draws, derive_seed, seeded
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents

#: Largest difference of outputs that rounding explains, as a share of the largest number of their channel, the last
#: dimension; a channel counts for at least this share of the largest one.
_ROUNDING, _LEAST = 1e-5, 1e-6
#: Samples of a generator, steps of its sampler if it has any, the scale of guidance, and the share of SDEdit's noise.
_ROWS, _STEPS, _SCALE, _SIGMA = 2, 2, 2.0, 0.5


@torch.no_grad()
def outputs_of(component: nn.Module, *, guided: bool = True) -> list[Tensor]:
    """What a component makes of fixed inputs: of one image, its latents and reconstruction; of latents, what follows.

    Generators of codes give their logits and losses at the end of training; others go a few guided steps from noised
    latents, because their losses depend on how they are trained, too.

    Its constant weights are replaced by random numbers: at their initial values, zero heads and gates and tiny scales
    would hide what is before them. So the component is of no other use afterwards.

    Args:
        component: a `Tokenizer` or `Generator`, in eval mode on the CPU.
        guided: whether to guide generators of vectors.
    """
    _show_all(component)
    with seeded("behaviour"):
        if isinstance(component, Tokenizer):
            return _encoded(component)
        assert isinstance(component, Generator)
        return _generated(component, guided=guided)


def same_outputs(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    """Whether results of `outputs_of` are equal, but for rounding."""
    return len(ours) == len(theirs) and all(_close(one, other) for one, other in zip(ours, theirs, strict=True))


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.equal(one, other):
        return True
    if not one.is_floating_point():
        return False
    sizes = torch.maximum(one.abs(), other.abs())
    scale = sizes.amax(dim=tuple(range(one.ndim - 1)), keepdim=True)  # channels may be of very different size
    scale = scale.clamp_min(float(_LEAST * sizes.max()))
    return bool(((one - other).abs() <= _ROUNDING * scale).all())


def _show_all(component: nn.Module) -> None:
    """Replaces parameters whose numbers are all the same by random ones, which depend on their names alone."""
    for name, weight in component.named_parameters():
        if weight.numel() > 1 and bool((weight == weight.flatten()[0]).all()):
            generator = torch.Generator().manual_seed(derive_seed("behaviour", name))
            scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 1.0
            weight.copy_(scale * torch.randn(weight.shape, generator=generator))


def _encoded(tokenizer: Tokenizer) -> list[Tensor]:
    images = Draws.for_rows(0, 1).uniform(3, tokenizer.image_size, tokenizer.image_size) * 2.0 - 1.0
    latents = tokenizer.encode(images)
    held = [tensor for tensor in (latents.codes, latents.vectors) if tensor is not None]
    return [*held, tokenizer.decode(latents).movedim(1, -1)]


def _generated(generator: Generator, *, guided: bool) -> list[Tensor]:
    space, draws = generator.space, Draws.for_rows(0, _ROWS)
    labels = torch.arange(_ROWS) % generator.num_classes
    if space.codebook_size is not None:
        latents = Latents(codes=draws.child("codes").integers(space.codebook_size, space.num_tokens))
        with _last_output(generator) as logits:  # a mean over tokens alone would hide small differences
            losses = generator.loss(latents, labels, draws=draws, progress=1.0)
        return [*logits, *losses.values()]
    kept = Latents(vectors=draws.child("vectors").normal(space.num_tokens, space.width))
    guidance = Guidance(scale=_SCALE) if guided else Guidance()
    sampled = generator.sample(
        labels, draws, guidance=guidance, keep=Keep(latents=kept, sigma=_SIGMA), sampling=_few_steps(generator)
    )
    return [tensor for tensor in (sampled.codes, sampled.vectors) if tensor is not None]


@contextmanager
def _last_output(network: nn.Module) -> Iterator[list[Tensor]]:
    """Gives a list that holds, at the end of the block, the output of the layer that was called last, if any."""
    last: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        last[:] = [output] if isinstance(output, Tensor) else []

    layers = [module for module in network.modules() if not any(module.children())]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield last
    finally:
        for hook in hooks:
            hook.remove()


def _few_steps(generator: Generator) -> Any:
    """The default options of a generator's sampler, with few steps where it has the option."""
    kind: Any = generator.Sampling
    has_steps = any(option.name == "steps" for option in attrs.fields(kind))
    return kind(steps=_STEPS) if has_steps else kind()
