"""Checks of tokenizers and quantizers."""

from __future__ import annotations

from typing import Any

import torch

from robustok.testing.subject import Subject, close, module_checks, pictures, same
from robustok_core.errors import RobustokError
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.draws import Draws, seeded
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.wording import some_names

_ROWS = 3


def tokenizer_checks(subject: Subject) -> None:
    """Checks latents (each depends only on its image), decoded images, gradients, and a separate decoder."""
    tokenizer, loaded = module_checks(subject, sketched=True)
    tokenizer.eval(), loaded.eval()
    images = pictures(_ROWS, tokenizer.image_size)
    with torch.no_grad():
        latents = tokenizer.encode(images)
        subject.latents(latents, tokenizer.space, _ROWS, "encode")
        subject.require(
            same(tokenizer.encode(images), latents), "in eval mode two calls of `encode` give different results"
        )
        subject.require(
            same(loaded.encode(images), latents),
            "`encode` gives a different result after its state dict is loaded into another build",
        )
        others = torch.cat([images[:1], pictures(_ROWS - 1, tokenizer.image_size, seed=1)])
        alone = same(tokenizer.encode(others)[:1], latents[:1])
        subject.require(alone, "the latents of an image depend on the other images of its batch")
        _decoding_checks(subject, tokenizer, loaded, latents)
    _gradient_checks(subject, tokenizer, images)


def _decoding_checks(subject: Subject, tokenizer: Tokenizer, loaded: Tokenizer, latents: Latents) -> None:
    decoded, size = tokenizer.decode(latents), tokenizer.image_size
    subject.tensor(decoded, (_ROWS, 3, size, size), None, "images of `decode`")
    alike = close(loaded.decode(latents), decoded)
    subject.require(alike, "`decode` gives a different result after its state dict is loaded into another build")
    again = close(tokenizer.decode(latents), decoded)
    subject.require(again, "in eval mode two calls of `decode` give different images")
    for rows in (slice(0, 1), slice(1, _ROWS)):
        alone = close(tokenizer.decode(latents[rows]), decoded[rows])
        subject.require(alone, "a decoded image depends on the other images of its batch")
    if latents.codes is not None:
        of_codes = tokenizer.decode(Latents(codes=latents.codes))
        subject.require(close(of_codes, decoded), "`decode` gives different images for codes alone than for vectors")


def _gradient_checks(subject: Subject, tokenizer: Tokenizer, images: torch.Tensor) -> None:
    tokenizer.train()
    images = images.clone().requires_grad_()
    with seeded("robustok.testing", "posterior"):
        latents = tokenizer.encode(images)
    for name, loss in latents.losses.items():
        subject.scalar(loss, f"the loss {name!r} of `encode`")
    decoder = tokenizer.decoder
    parameters = {name: p for name, p in decoder.named_parameters() if p.requires_grad}
    subject.require(bool(parameters), "`decoder` has nothing to train")
    assert latents.vectors is not None
    if latents.vectors.requires_grad:
        reached = torch.autograd.grad(
            latents.vectors.sum(), list(parameters.values()), retain_graph=True, allow_unused=True
        )
        touched = [name for name, gradient in zip(parameters, reached, strict=True) if gradient is not None]
        subject.require(not touched, f"the latents depend on {touched} of `decoder`, which post-training changes")
    decoded = tokenizer.decode_vectors(latents.vectors)
    decoded.square().mean().backward()
    reached_images = images.grad is not None and bool(images.grad.any())
    subject.require(
        reached_images, "no gradient flows from the decoded images to the input images; a quantizer must pass it on"
    )
    without = [name for name, parameter in parameters.items() if parameter.grad is None]
    subject.require(not without, f"no gradient flows from the decoded images to {without} of `decoder`")
    last = any(tokenizer.last_layer is parameter for parameter in decoder.parameters())
    subject.require(last, "`last_layer` is not a parameter of `decoder`")


def quantizer_checks(subject: Subject) -> None:
    """Checks codes, codewords, the straight-through gradient, and the order of neighbours."""
    quantizer, loaded = module_checks(subject, sketched=True)
    quantizer.eval(), loaded.eval()
    size, width = quantizer.codebook_size, quantizer.width
    space = LatentSpace(kind="discrete", num_tokens=5, width=width, codebook_size=size)
    z = Draws.for_rows(0, _ROWS).normal(5, width)
    with torch.no_grad():
        latents = quantizer.quantize(z)
        subject.tensor(latents.features, (_ROWS, 5, width), None, "features of `quantize`")
        subject.require(not latents.losses, "`quantize` returns losses in eval mode")
        looked_up = close(quantizer.lookup(latents.codes), latents.vectors)
        subject.require(looked_up, "in eval mode `lookup` of the codes differs from the vectors")
        subject.require(
            same(loaded.quantize(z), latents),
            "`quantize` gives a different result after its state dict is loaded into another build",
        )
        others = torch.cat([z[:1], Draws.for_rows(1, _ROWS - 1).normal(5, width)])
        alone = same(quantizer.quantize(others)[:1], latents[:1])
        subject.require(alone, "the quantized vectors of an image depend on the other images of its batch")
        _codebook_checks(subject, quantizer, z.flatten(0, 1))
    _training_checks(subject, quantizer, z, space)


def _codebook_checks(subject: Subject, quantizer: Any, z: torch.Tensor) -> None:
    try:
        codebook = quantizer.codebook
    except RobustokError:
        return  # too large to list
    size, count = quantizer.codebook_size, min(3, quantizer.codebook_size)
    subject.tensor(codebook, (size, quantizer.width), None, "`codebook`")
    listed = close(quantizer.lookup(torch.arange(size)), codebook)
    subject.require(listed, "`codebook` must equal `lookup` of all codes in order")
    near = quantizer.nearest(codebook, count)
    found, rows = codebook.double()[near], codebook.double()[:, None]  # (K, count, D), (K, 1, D)
    if quantizer.nearest_by == "distance":
        distances = torch.cdist(rows, found)[:, 0]  # (K, count)
        subject.require(bool((distances[:, 0] < 1e-3).all()), "the codeword nearest to a codeword must be itself")
    else:
        distances = -(rows * found).sum(-1)
    subject.require(bool((distances.diff(dim=1) > -1e-3).all()), "`nearest` must return the nearest codes first")
    distinct = all(len(set(row)) == count for row in quantizer.nearest(z, count).tolist())
    subject.require(distinct, "`nearest` returns a code twice")


def _training_checks(subject: Subject, quantizer: Any, z: torch.Tensor, space: LatentSpace) -> None:
    quantizer.train()
    z, before = z.clone().requires_grad_(), _codewords(quantizer)
    latents = quantizer.quantize(z)
    kept = torch.equal(_codewords(quantizer), before)
    subject.require(
        kept, "`quantize` changes the codebook; only `after_step` may, once for all micro-batches of a step"
    )
    subject.latents(latents, space, _ROWS, "quantize")
    for name, loss in latents.losses.items():
        subject.scalar(loss, f"the loss {name!r} of `quantize`")
    latents.vectors.square().sum().backward()
    reached = z.grad is not None and bool(z.grad.any())
    subject.require(reached, "no gradient flows from the vectors to the quantizer's input (straight-through)")
    quantizer.after_step(Draws.for_rows(2, _ROWS))
    subject.latents(quantizer.eval().quantize(z.detach()), space, _ROWS, "quantize after `after_step`")
    _step_checks(subject, z.detach())


def _step_checks(subject: Subject, z: torch.Tensor) -> None:
    """Requires one codebook of two processes, whose torch generators and rows of draws differ."""
    states = []
    for process in range(2):
        quantizer = subject.build().train()
        with seeded("robustok.testing", "step"):
            quantizer.quantize(z)
        with seeded("robustok.testing", "process", process):
            rows = range(process * _ROWS, (process + 1) * _ROWS)
            quantizer.after_step(Draws.for_part(2, rows, 2 * _ROWS))
        states.append({**quantizer.state_dict(), "the codebook": _codewords(quantizer)})
    differing = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
    words = "take random numbers from `draws.generator()`, not from torch's or the rows of `draws`"
    subject.require(
        not differing, f"`after_step` makes another state on each process ({some_names(differing)}): {words}"
    )


def _codewords(quantizer: Any) -> torch.Tensor:
    """(n, D) the first codewords; a codebook may be too large to list."""
    with torch.no_grad():
        return quantizer.lookup(torch.arange(min(quantizer.codebook_size, 4096))).clone()
