"""The adversarial term and its opponent: values computed by hand, and which parameters get gradients."""

from __future__ import annotations

import copy

import attrs
import pytest
import torch
from torch import nn

from robustok_core.errors import ProblemsError, RobustokError
from robustok_losses.adversarial import adaptive_weight
from robustok_losses.discriminator import hinge
from robustok_losses.lecam import LeCam

PATCH = {"patch": {"layers": 1, "width": 4}}
HEADS = {"heads": {"features": {"use": "tiny"}, "virtual_batch": 4}}
both_kinds = pytest.mark.parametrize("kind", [PATCH, HEADS], ids=["patch", "heads"])


@pytest.fixture
def make(tiny, registry):
    def build(kind=PATCH, **options):
        table = {"use": "adversarial", "start": 0.0, **kind, **options}
        return tiny.seeded(1, lambda: registry.build("loss", table))

    return build


def test_the_hinge_is_linear_within_its_margin_and_flat_outside():
    real = [torch.tensor([[2.0, 0.5], [-1.0, 1.0]])]  # relu(1 - x): 0, .5, 2, 0
    fake = [torch.tensor([[-3.0, 0.0], [1.5, -0.5]])]  # relu(1 + x): 0, 1, 2.5, .5

    assert hinge(real, fake).item() == pytest.approx((2.5 / 4 + 4.0 / 4) / 2)


def test_heads_have_the_same_weight_whatever_their_number_of_positions():
    real = [torch.full((2, 16), 1.0), torch.full((2, 1), -1.0)]

    assert hinge(real, [torch.full((2, 1), -1.0)]).item() == pytest.approx((0 + 2) / 2 / 2)


def test_lecam_matches_its_formula_and_updates_its_means():
    lecam = LeCam(decay=0.9).train()
    real, fake = [torch.tensor([[1.0, 3.0]])], [torch.tensor([[-2.0, 1.0]])]

    first, second = lecam(real, fake), lecam(real, fake)

    assert first.item() == pytest.approx((1 + 9) / 2 + 4 / 2)  # both means start at 0
    real_mean, fake_mean = 0.1 * 2.0, 0.1 * -0.5
    expected = ((1 - fake_mean) ** 2 + (3 - fake_mean) ** 2) / 2 + (real_mean + 2) ** 2 / 2
    assert second.item() == pytest.approx(expected)
    assert lecam.real_mean.item() == pytest.approx(0.9 * real_mean + 0.1 * 2.0)
    before = copy.deepcopy(lecam.state_dict())
    lecam.eval()(real, fake)
    assert lecam.state_dict() == before


def test_before_its_start_the_term_is_zero_and_nothing_is_computed(tiny, make):
    loss = make(start=0.28)
    loss.opponent.network = None  # fails if called

    early = loss(tiny.make_step(progress=55 / 200))

    assert early.item() == 0.0
    assert not early.requires_grad
    assert loss.logs() == {}
    with pytest.raises(TypeError):
        loss(tiny.make_step(progress=56 / 200))


def test_the_discriminator_is_trained_from_its_own_start(make):
    together, earlier = make(start=0.28).opponent, make(start=0.28, discriminator_start=0.1).opponent

    assert [together.active(share) for share in (0.0, 55 / 200, 56 / 200, 1.0)] == [False, False, True, True]
    assert [earlier.active(share) for share in (0.09, 0.1)] == [False, True]
    assert (together.start, earlier.start) == (0.28, 0.1)


@both_kinds
def test_the_term_does_not_change_the_discriminator(tiny, make, kind):
    loss = make(kind)
    state = copy.deepcopy(loss.state_dict())
    step = tiny.make_step()

    loss(step).backward()

    assert step.tokenizer.to_pixels.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.opponent.parameters())
    assert all(torch.equal(value, state[name]) for name, value in loss.state_dict().items())
    assert all(parameter.requires_grad for parameter in loss.opponent.parameters())
    assert all(module.training for module in loss.opponent.modules())


@both_kinds
def test_the_opponents_loss_gives_gradients_to_all_its_parameters_and_updates_its_buffers(tiny, make, kind):
    opponent = make(kind).opponent
    buffers = {name: value.clone() for name, value in opponent.named_buffers()}
    with torch.no_grad():
        for parameter in opponent.parameters():
            parameter[0] += 0.1  # like an optimiser step, so that the power iteration changes its vectors

    opponent(tiny.opponents_view(tiny.make_step())).backward()

    assert all(parameter.grad is not None for parameter in opponent.parameters())
    assert len(buffers) == (2 if kind is PATCH else 2 + 2 * 6)
    of_one_row = [name for name, value in buffers.items() if name.endswith("_u") and len(value) == 1]  # always 1 or -1
    assert [name for name, value in opponent.named_buffers() if torch.equal(value, buffers[name])] == of_one_row
    assert set(buffers) <= set(opponent.state_dict())


def test_the_power_iteration_takes_one_step_per_pass_over_real_and_decoded_images(tiny, make):
    opponent = make(HEADS).opponent
    layer = opponent.network.heads[1][0][0].parametrizations.weight
    with torch.no_grad():
        layer.original[0] += 0.3
    weight, v = layer.original.detach().flatten(1), layer[0]._v.clone()

    opponent(tiny.opponents_view(tiny.make_step()))

    torch.testing.assert_close(layer[0]._u, nn.functional.normalize(weight @ v, dim=0))


def test_the_opponents_loss_gives_no_gradient_to_the_tokenizer(tiny, make):
    step = tiny.make_step()

    make().opponent(step).backward()

    assert all(parameter.grad is None for parameter in step.tokenizer.parameters())


def test_the_term_is_the_negated_mean_logit_of_the_augmented_images(tiny, make):
    loss = make(adaptive=False, augmentation={"probability": 0.0})
    step = tiny.make_step()

    (logits,) = loss.opponent.network(step.images)

    torch.testing.assert_close(loss(step), -logits.mean())


@both_kinds
def test_the_adaptive_weight_is_the_ratio_of_two_gradients(tiny, make, kind):
    step = tiny.make_step()
    weighted, plain = make(kind)(step), make(kind, adaptive=False)(step)
    last = step.tokenizer.to_pixels.weight

    image_gradient = torch.autograd.grad(step.image_loss, last, retain_graph=True)[0]
    gradient = torch.autograd.grad(plain, last, retain_graph=True)[0]
    expected = image_gradient.square().sum().sqrt() / (gradient.square().sum().sqrt() + 1e-4)

    torch.testing.assert_close(weighted, expected * plain)
    # the weight is a constant: the gradient of the weighted term is that of the plain term times the weight
    torch.testing.assert_close(torch.autograd.grad(weighted, last)[0], expected * gradient)


def test_the_adaptive_weight_has_a_ceiling_and_is_logged(tiny, make):
    step = tiny.make_step()
    loss = make()
    loss(attrs.evolve(step, image_loss=step.image_loss * 1e9))

    assert loss.logs()["adaptive_weight"].item() == 1e4
    assert adaptive_weight(step.image_loss, step.image_loss * 0, step.tokenizer.last_layer).item() < 1e4


def test_an_adaptive_weight_without_an_image_term_is_refused(tiny, make):
    step = tiny.make_step()

    for image_loss in (None, torch.zeros(())):
        with pytest.raises(RobustokError, match="set adaptive = false"):
            make()(attrs.evolve(step, image_loss=image_loss))


def test_lecam_is_part_of_the_discriminators_loss(tiny, make):
    step = tiny.opponents_view(tiny.make_step())
    without, with_lecam = make(lecam=0.0).opponent, make(lecam=0.5).opponent
    penalties = []
    with_lecam.lecam.register_forward_hook(lambda module, inputs, penalty: penalties.append(penalty))

    difference = with_lecam(step) - without(step)

    torch.testing.assert_close(difference, 0.5 * penalties[0])
    assert set(with_lecam.logs()) == {"real_logits", "fake_logits"}


@both_kinds
def test_a_discriminator_learns_to_tell_two_sets_of_images_apart(tiny, make, kind):
    loss = make(kind)
    optimizer = torch.optim.Adam(loss.opponent.parameters(), lr=3e-2)
    step = tiny.opponents_view(tiny.make_step())
    before = loss.opponent(step).item()
    for _ in range(80):
        optimizer.zero_grad()
        loss.opponent(step).backward()
        optimizer.step()

    assert before > 0.95
    assert loss.opponent(step).item() < 0.8
    assert loss.opponent.logs()["real_logits"] > loss.opponent.logs()["fake_logits"] + 0.4


@both_kinds
def test_training_resumes_bit_for_bit_from_a_state_dict(tiny, make, kind):
    def train(opponent, optimizer, seeds):
        for seed in seeds:
            optimizer.zero_grad()
            value = opponent(tiny.opponents_view(tiny.make_step(seed=seed)))
            value.backward()
            optimizer.step()
        return value

    through = make(kind).opponent
    optimizer = torch.optim.AdamW(through.parameters(), lr=1e-2)
    train(through, optimizer, range(3))
    saved = copy.deepcopy((through.state_dict(), optimizer.state_dict()))
    expected = train(through, optimizer, range(3, 6))

    resumed = tiny.seeded(99, lambda: make(kind)).opponent
    resumed.load_state_dict(saved[0])
    optimizer = torch.optim.AdamW(resumed.parameters(), lr=1e-2)
    optimizer.load_state_dict(saved[1])

    assert torch.equal(train(resumed, optimizer, range(3, 6)), expected)


def test_the_opponents_parameters_are_not_trained_with_the_tokenizer(make):
    loss = make(HEADS)

    assert loss.own_parameters() == []
    assert loss.opponent.optimizer.weight_decay == 5e-4
    assert not any("features" in name or "maps" in name for name in loss.state_dict())


def test_the_discriminators_optimizer_keeps_its_other_defaults_if_one_key_is_set(make):
    optimizer = make(optimizer={"learning_rate": 3e-4}).opponent.optimizer

    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.betas) == (3e-4, 5e-4, (0.9, 0.95))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one discriminator"),
        ({**PATCH, "heads": {}}, "exactly one discriminator"),
        ({**PATCH, "start": 0.2, "discriminator_start": 0.3}, "must not be later than start"),
        ({"patch": {"norm": "layer"}}, "is not one of 'group', 'batch', 'none'"),
        ({**PATCH, "augmentation": {"probabilty": 0.5}}, "did you mean 'probability'"),
        ({**PATCH, "start": 56}, "out of range"),
    ],
)
def test_invalid_options_are_refused(registry, options, message):
    with pytest.raises(ProblemsError, match=message):
        registry.spec("loss", {"use": "adversarial", **options})


def test_images_too_small_for_the_patches_are_refused_before_training(tiny, make):
    make({"patch": {"layers": 2}}).prepare(tiny.make_tokenizer())
    with pytest.raises(RobustokError, match="of 3 layers needs images of 24 pixels, these have 16"):
        make({"patch": {"layers": 3}}).prepare(tiny.make_tokenizer())


def test_maps_too_small_for_the_kernel_are_refused_before_training(tiny, registry):
    """The tiny network's maps of 16 pixels have 64 and 16 positions."""

    def prepared(**heads):
        loss = registry.spec("loss", {"use": "adversarial", "heads": {**HEADS["heads"], **heads}}).sketch()
        loss.prepare(tiny.make_tokenizer())

    prepared(kernel=33)
    prepared(kernel=129, layers=[0])
    with pytest.raises(RobustokError, match="heads.kernel = 35 is too large for maps of 4 x 4 positions"):
        prepared(kernel=35)


@both_kinds
def test_a_resolved_table_builds_the_same_term_again(registry, kind):
    spec = registry.spec("loss", {"use": "adversarial", **kind})

    assert registry.spec("loss", spec.table()) == spec


@both_kinds
def test_the_opponents_loss_runs_on_the_meta_device(tiny, registry, kind):
    with torch.device("meta"):
        opponent = registry.build("loss", {"use": "adversarial", **kind}).opponent
        images = torch.zeros(8, 3, 16, 16)
    step = tiny.make_step()
    planned = attrs.evolve(step, batch=step.batch.to("meta"), images=images, draws=step.draws.to("meta"))

    opponent(planned).backward()

    assert all(parameter.grad.is_meta for parameter in opponent.parameters())
