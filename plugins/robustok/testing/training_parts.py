"""Checks of perturbations and losses."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from robustok.testing.subject import CONTINUOUS, DISCRETE, TINY_TOKENIZER, Subject, pictures, same
from robustok_core.errors import RobustokError
from robustok_core.kinds.boundary import BrokenPromise
from robustok_core.kinds.loss import Loss, Reconstruction
from robustok_core.kinds.perturbation import Perturbation, agreement
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws, seeded
from robustok_core.values.latents import Latents, LatentSpace

_ROWS = 8


def perturbation_checks(subject: Subject, *, space: LatentSpace | None = None) -> None:
    """Checks the latents, the mask of changed tokens, the gradient, and that images do not affect each other."""
    perturbation, reasons, checked = subject.build(), [], 0
    for candidate in (DISCRETE, CONTINUOUS) if space is None else (space,):
        try:
            perturbation.check(candidate, _ROWS)
        except RobustokError as error:
            reasons.append(str(error))
            continue
        checked += 1
        quantizer = None
        if candidate.codebook_size is not None:
            quantizer = subject.other(
                "quantizer", {"use": "vq", "codebook_size": candidate.codebook_size, "width": candidate.width}
            )
            quantizer.eval()
        for progress in (0.0, 0.5, 1.0):
            _perturbed_checks(subject, perturbation, candidate, quantizer, progress)
    subject.require(checked > 0, f"`check` refuses every latent space: {'; '.join(reasons)}")


def _perturbed_checks(
    subject: Subject, perturbation: Perturbation, space: LatentSpace, quantizer: Quantizer | None, progress: float
) -> None:
    clean, draws = _latents(space, quantizer), Draws.for_rows(0, _ROWS)
    before = copy.deepcopy(clean.detach())
    changed: Any
    with _failing_in(subject, space):
        changed, mask = perturbation.perturb(clean, quantizer, draws=draws, progress=progress)
    subject.latents(changed, space, _ROWS, "perturb")
    subject.require(same(clean.detach(), before), "`perturb` modifies its input latents")
    kept = torch.equal(changed.vectors[~mask], before.vectors[~mask])
    if quantizer is not None:
        kept = kept and torch.equal(changed.codes[~mask], before.codes[~mask])
        _agreement_checks(subject, changed, before, quantizer)
    subject.require(kept, "tokens outside the mask have changed")
    again = perturbation.perturb(clean, quantizer, draws=draws, progress=progress)
    repeated = same(again[0], changed) and torch.equal(again[1], mask)
    subject.require(repeated, "the same draws give different results; take random numbers only from `draws`")
    some = slice(2, 5)
    part = perturbation.perturb(clean[some], quantizer, draws=draws[some], progress=progress)
    alone = same(part[0], changed[some]) and torch.equal(part[1], mask[some])
    subject.require(alone, "the perturbed latents of an image depend on the other images of its batch")
    (gradient,) = torch.autograd.grad(changed.vectors.square().sum(), clean.vectors, allow_unused=True)
    reached = gradient is not None and (bool(mask.all()) or bool(gradient[~mask].any()))
    subject.require(reached, "no gradient flows to the clean vectors")


@contextmanager
def _failing_in(subject: Subject, space: LatentSpace) -> Iterator[None]:
    """Calls the method in a space that `check` accepts: says what a failure there may mean."""
    try:
        yield
    except BrokenPromise:
        raise
    except Exception as error:
        other = "without" if space.codebook_size is None else "with"
        what = f"`perturb` fails in a {space.kind} space, which `check` accepts ({type(error).__name__}: {error})"
        advice = f"if it is not made for such latents, refuse spaces {other} codes in `check`"
        raise AssertionError(f"{subject.spec.kind} {subject.spec.name!r}: {what}; {advice}") from error


def _agreement_checks(subject: Subject, changed: Any, before: Any, quantizer: Quantizer) -> None:
    """Another code has its own vector, and the vector of another code comes with that code."""
    agreement(subject, changed, before, quantizer)
    replaced = (changed.vectors.detach() != before.vectors).any(dim=-1) & (changed.codes == before.codes)  # (B, N)
    vectors = changed.vectors.detach()[replaced]
    near = quantizer.nearest(vectors, 1)[:, 0]
    other = near != changed.codes[replaced]
    codewords = (quantizer.lookup(near) - vectors).abs().amax(dim=-1) < 1e-5
    stale = bool((other & codewords).any())
    subject.require(not stale, "`perturb` puts in the vectors of other codes, but keeps the codes")


def _latents(space: LatentSpace, quantizer: Quantizer | None) -> Any:
    """Latents of a batch; their vectors require gradients."""
    draws = Draws.for_rows(1, _ROWS)
    features = draws.normal(space.num_tokens, space.width)
    if quantizer is None:
        return Latents(vectors=features.clone().requires_grad_(), features=features)
    codes = draws.integers(quantizer.codebook_size, space.num_tokens)
    vectors = quantizer.lookup(codes).detach().clone().requires_grad_()
    return Latents(vectors=vectors, codes=codes, features=features)


def loss_checks(subject: Subject, *, tokenizer: Mapping[str, Any] = TINY_TOKENIZER) -> None:
    """Checks the loss and its gradient, its saved state, and the loss of its opponent."""
    net = subject.other("tokenizer", tokenizer).train()
    loss, again, loaded = (_prepared(subject, net, seed) for seed in (0, 0, 1))
    weight = getattr(getattr(loss, "config", None), "weight", None)
    subject.require(isinstance(weight, (int, float)), "`config` must have a `weight`, which scales the term")
    loaded.load_state_dict(copy.deepcopy(loss.state_dict()))
    step = _reconstruction(net)
    value = loss(step)
    subject.scalar(value, "`forward`")
    subject.require(torch.allclose(again(step), value), "two builds with the same seed give different values")
    subject.require(
        torch.allclose(loaded(step), value), "the value differs after its state dict is loaded into another build"
    )
    sources = [step.images, step.latents.vectors, step.latents.features, *loss.own_parameters()]
    wanted = [source for source in sources if isinstance(source, Tensor) and source.requires_grad]
    gradients = torch.autograd.grad(value, wanted, allow_unused=True) if value.requires_grad else [None]
    subject.require(any(gradient is not None for gradient in gradients), "it gives the tokenizer no gradient")
    loss.logs()  # checked where it is called
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
    decoded = net.decode(latents)
    return Reconstruction(
        batch=ImageBatch(images=images, labels=labels, indices=torch.arange(_ROWS)),
        latents=latents,
        decoded=latents,
        images=decoded,
        tokenizer=net,
        draws=Draws.for_rows(0, _ROWS),
        progress=1.0,
        image_loss=(decoded - images).square().mean(),
    )


def _opponent_checks(subject: Subject, loss: Loss, step: Reconstruction) -> None:
    import attrs

    opponent = loss.opponent
    assert opponent is not None
    subject.require(hasattr(opponent, "optimizer"), "its opponent must have an `optimizer`")
    value = opponent(attrs.evolve(step, images=step.images.detach()))
    subject.scalar(value, "`forward` of the opponent")
    opponent.logs()  # checked where it is called
    trained = [parameter for parameter in opponent.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(value, trained, allow_unused=True) if value.requires_grad and trained else ()
    subject.require(
        any(g is not None for g in gradients), "no gradient flows from the opponent's loss to its parameters"
    )
