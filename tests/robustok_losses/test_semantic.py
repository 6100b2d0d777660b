"""The semantic term against a plain InfoNCE."""

from __future__ import annotations

import math

import pytest
import torch

from robustok_losses.semantic import info_nce


@pytest.fixture
def make(tiny, registry):
    def build(**options):
        def prepared():
            loss = registry.build("loss", {"use": "semantic", **options})
            loss.prepare(tiny.make_tokenizer())
            return loss

        return tiny.seeded(2, prepared)

    return build


def plain(logits: torch.Tensor) -> float:
    """InfoNCE as in the formula: the diagonal entry of each row and column against all of its entries."""
    terms = []
    for i in range(len(logits)):
        terms.append(-math.log(math.exp(logits[i, i]) / sum(math.exp(value) for value in logits[i])))
        terms.append(-math.log(math.exp(logits[i, i]) / sum(math.exp(value) for value in logits[:, i])))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("normalize", "scale"), [(False, 1.0), (True, 5.0)])
def test_the_term_is_infonce_of_projected_mean_latents_and_the_teachers_features(tiny, make, normalize, scale):
    loss = make(normalize=normalize, logit_scale=scale)
    step = tiny.make_step()

    latents = step.latents.vectors.detach().mean(dim=1) @ loss.projection.weight.detach().T
    teacher = tiny.features().build().eval()(step.batch.images)
    if normalize:
        latents, teacher = (x / x.norm(dim=1, keepdim=True) for x in (latents, teacher))

    assert loss(step).item() == pytest.approx(plain((scale * latents @ teacher.T).double()), rel=1e-5)


def test_infonce_is_symmetric():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(info_nce(logits), info_nce(logits.T))


def test_equal_similarities_give_the_logarithm_of_the_batch_size():
    assert info_nce(torch.zeros(8, 8)).item() == pytest.approx(math.log(8))


def test_the_term_uses_clean_latents_by_default_and_perturbed_ones_on_request(tiny, make):
    step = tiny.make_step()

    clean = torch.autograd.grad(make()(step), (step.latents.vectors, step.decoded.vectors), allow_unused=True)
    perturbed = torch.autograd.grad(make(on="perturbed")(step), step.decoded.vectors)

    assert clean[0].abs().min() > 0
    assert clean[1] is None
    assert perturbed[0].abs().min() > 0


def test_the_term_needs_no_decoded_images_and_trains_only_its_projection(tiny, make):
    import attrs

    loss = make()
    step = attrs.evolve(tiny.make_step(), images=None)

    loss(step).backward()

    assert loss.own_parameters() == [loss.projection.weight]
    assert loss.projection.weight.shape == (6, 6)
    assert loss.projection.weight.grad.abs().sum() > 0
    assert list(loss.state_dict()) == ["projection.weight"]


def test_training_makes_each_images_latents_match_its_teacher_features(tiny, make):
    loss = make()
    tokenizer = tiny.make_tokenizer()
    parameters = [*tokenizer.encoder.parameters(), *loss.own_parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss(tiny.make_step(tokenizer=tokenizer)).backward()
        optimizer.step()

    loss(tiny.make_step(tokenizer=tokenizer))
    assert loss.logs()["accuracy"].item() == 1.0


def test_similarities_are_computed_in_float32_under_autocast(tiny, make):
    loss, step = make(logit_scale=20.0), tiny.make_step()
    exact = loss(step)

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=True):
        half = loss(step)

    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0.02)  # the teacher may run in bfloat16
