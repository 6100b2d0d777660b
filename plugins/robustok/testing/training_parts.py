"""What perturbations and losses promise."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustok.testing.subject import CONTINUOUS, DISCRETE, TINY_TOKENIZER, Subject, pictures, same
from robustok_core.errors import RobustokError
from robustok_core.kinds.loss import Loss, Reconstruction
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws, seeded
from robustok_core.values.latents import Latents, LatentSpace

_ROWS = 8


def perturbation_checks(subject: Subject, *, space: LatentSpace | None = None) -> None:
    """Latents of the same space, the mask of what changed, the gradient, and an image's own random numbers."""
    perturbation, reasons, checked = subject.build(), [], 0
    for one in (DISCRETE, CONTINUOUS) if space is None else (space,):
        try:
            perturbation.check(one, _ROWS)
        except RobustokError as error:
            reasons.append(str(error))
            continue
        checked += 1
        quantizer = None
        if one.codebook_size is not None:
            quantizer = subject.other(
                "quantizer", {"use": "vq", "codebook_size": one.codebook_size, "width": one.width}
            )
            quantizer.eval()
        for progress in (0.0, 0.5, 1.0):
            _perturbed_checks(subject, perturbation, one, quantizer, progress)
    subject.require(checked > 0, f"`check` refuses every latent space: {'; '.join(reasons)}")


def _perturbed_checks(
    subject: Subject, perturbation: Perturbation, space: LatentSpace, quantizer: Quantizer | None, progress: float
) -> None:
    clean, draws = _latents(space, quantizer), Draws.for_rows(0, _ROWS)
    before = copy.deepcopy(clean.detach())
    found = perturbation.perturb(clean, quantizer, draws=draws, progress=progress)
    subject.require(isinstance(found, tuple) and len(found) == 2, "`perturb` must return latents and a mask")
    changed: Any = found[0]
    mask = found[1]
    subject.latents(changed, space, _ROWS, "perturb")
    subject.tensor(changed.vectors, tuple(before.vectors.shape), None, "vectors of `perturb`")
    subject.tensor(mask, (_ROWS, space.num_tokens), torch.bool, "the mask of `perturb`")
    subject.require(same(clean.detach(), before), "`perturb` writes into the latents that it was given")
    kept = torch.equal(changed.vectors[~mask], before.vectors[~mask])
    subject.require(kept, "tokens that the mask leaves out have changed")
    again = perturbation.perturb(clean, quantizer, draws=draws, progress=progress)
    repeated = same(again[0], changed) and torch.equal(again[1], mask)
    subject.require(repeated, "the same draws give another result; take random numbers from `draws` alone")
    some = slice(2, 5)
    part = perturbation.perturb(clean[some], quantizer, draws=draws[some], progress=progress)
    alone = same(part[0], changed[some]) and torch.equal(part[1], mask[some])
    subject.require(alone, "what becomes of an image depends on which others are in its batch")
    (gradient,) = torch.autograd.grad(changed.vectors.square().sum(), clean.vectors, allow_unused=True)
    reached = gradient is not None and (bool(mask.all()) or bool(gradient[~mask].any()))
    subject.require(reached, "no gradient goes on to the clean vectors")


def _latents(space: LatentSpace, quantizer: Quantizer | None) -> Any:
    """Latents of a batch, whose vectors ask for a gradient."""
    draws = Draws.for_rows(1, _ROWS)
    features = draws.normal(space.num_tokens, space.width)
    if quantizer is None:
        return Latents(vectors=features.clone().requires_grad_(), features=features)
    codes = draws.integers(quantizer.codebook_size, space.num_tokens)
    vectors = quantizer.lookup(codes).detach().clone().requires_grad_()
    return Latents(vectors=vectors, codes=codes, features=features)


def loss_checks(subject: Subject, *, tokenizer: Mapping[str, Any] = TINY_TOKENIZER) -> None:
    """A scalar that trains the tokenizer, the same after a restart; and its opponent's, which trains that."""
    net = subject.other("tokenizer", tokenizer).train()
    loss, again, loaded = (_prepared(subject, net, seed) for seed in (0, 0, 1))
    weight = getattr(getattr(loss, "config", None), "weight", None)
    subject.require(isinstance(weight, (int, float)), "`config` needs a `weight`, by which the term is scaled")
    loaded.load_state_dict(copy.deepcopy(loss.state_dict()))
    step = _reconstruction(net)
    value = loss(step)
    subject.scalar(value, "`forward`")
    subject.require(torch.allclose(again(step), value), "two of them with the same seed give different values")
    subject.require(torch.allclose(loaded(step), value), "with its state dict in another one, the value differs")
    sources = [step.images, step.latents.vectors, step.latents.features, *loss.own_parameters()]
    wanted = [source for source in sources if isinstance(source, Tensor) and source.requires_grad]
    found = torch.autograd.grad(value, wanted, allow_unused=True) if value.requires_grad else [None]
    if loss.compares_images:
        subject.require(found[0] is not None, "no gradient reaches the pictures that it compares")
    subject.require(any(gradient is not None for gradient in found), "it has no gradient to train the tokenizer by")
    for name, number in loss.logs().items():
        is_one = isinstance(number, (int, float)) or (isinstance(number, Tensor) and number.numel() == 1)
        subject.require(is_one, f"`logs` must give numbers, and {name!r} is none")
    if loss.opponent is not None:
        _opponent_checks(subject, loss, step)


def _prepared(subject: Subject, net: Any, seed: int) -> Any:
    loss = subject.build(seed=seed)
    with seeded("robustok.testing", "prepare", seed):
        loss.prepare(net)
    return loss.train()


def _reconstruction(net: Any) -> Reconstruction:
    images = pictures(_ROWS, net.image_size)
    labels = torch.arange(_ROWS) % 2
    latents = net.encode(images)
    drawn = net.decode(latents)
    return Reconstruction(
        batch=ImageBatch(images=images, labels=labels, indices=torch.arange(_ROWS)),
        latents=latents,
        decoded=latents,
        images=drawn,
        tokenizer=net,
        draws=Draws.for_rows(0, _ROWS),
        progress=1.0,
        image_loss=(drawn - images).square().mean(),
    )


def _opponent_checks(subject: Subject, loss: Loss, step: Reconstruction) -> None:
    import attrs

    opponent = loss.opponent
    assert opponent is not None
    subject.require(hasattr(opponent, "optimizer"), "its opponent does not say by which `optimizer` it is trained")
    value = opponent(attrs.evolve(step, images=step.images.detach()))
    subject.scalar(value, "`forward` of the opponent")
    trained = [parameter for parameter in opponent.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(value, trained, allow_unused=True) if value.requires_grad and trained else ()
    subject.require(any(g is not None for g in found), "no gradient of the opponent's loss reaches its parameters")
