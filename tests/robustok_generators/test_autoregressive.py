"""What autoregressive generators share: sampler, kept codes, guidance and training, on small models."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from robustok_core.errors import RobustokError
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.token_sampling import TokenSampling, choose
from robustok_toolkit.generating import generate

NAMES = ["rar", "llamagen_gpt", "gigatok_gpt"]
NUM_TOKENS, CODEBOOK_SIZE, NUM_CLASSES = 12, 20, 5
NONE = Guidance()
GUIDED = Guidance(scale=3.0, schedule="cosine", power=1.5)
LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


def draws_of(count: int, seed: int = 1) -> Draws:
    return Draws.for_rows(seed, count)


def codes_of_images(count: int, seed: int = 9) -> torch.Tensor:
    return draws_of(count, seed).integers(CODEBOOK_SIZE, NUM_TOKENS)


@torch.no_grad()
def recomputed(generator, labels, draws, guidance=NONE, sampling=None):
    """The same codes from a full forward pass per code, separately for conditional and unconditional rows."""
    uniform = draws.child("tokens").uniform(NUM_TOKENS)
    codes = torch.zeros(len(labels), NUM_TOKENS, dtype=torch.int64)
    for position in range(NUM_TOKENS):
        logits = generator(codes, labels)[:, position]
        if guidance.active:
            free = generator(codes, torch.full_like(labels, NUM_CLASSES))[:, position]
            logits = free + guidance.weight(position / NUM_TOKENS) * (logits - free)
        codes[:, position] = choose(logits, uniform[:, position], sampling or TokenSampling())
    return codes


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [NONE, GUIDED], ids=["free", "guided"])
@pytest.mark.parametrize("name", NAMES)
def test_codes_equal_those_of_recomputing_everything(make, name, guidance):
    generator, draws = make(name), draws_of(7)
    codes = generator.sample(LABELS, draws, guidance=guidance).codes
    assert codes.dtype == torch.int64
    assert torch.equal(codes, recomputed(generator, LABELS, draws, guidance))


@pytest.mark.parametrize("guidance", [NONE, GUIDED], ids=["free", "guided"])
@pytest.mark.parametrize("name", NAMES)
def test_along_its_own_samples_it_draws_them_again(make, name, guidance):
    """Each code is drawn after the same codes, with the same random number."""
    generator, draws = make(name), draws_of(7)
    sampled = generator.sample(LABELS, draws, guidance=guidance)
    assert torch.equal(generator.sample_forced(LABELS, draws, real=sampled, guidance=guidance).codes, sampled.codes)


@pytest.mark.parametrize("name", NAMES)
def test_along_real_codes_a_draw_depends_on_the_true_codes_before_it(make, name):
    generator, draws = make(name), draws_of(7)
    real = codes_of_images(7)
    forced = generator.sample_forced(LABELS, draws, real=Latents(codes=real), guidance=NONE).codes
    with torch.no_grad():
        logits = generator(real, LABELS)  # position i predicts the i-th code, after the codes before it
    uniform = draws.child("tokens").uniform(NUM_TOKENS)
    expected = [choose(logits[:, i].float(), uniform[:, i], TokenSampling()) for i in range(NUM_TOKENS)]
    assert torch.equal(forced, torch.stack(expected, dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_single_steps_equal_those_of_a_full_pass(make, name):
    generator, codes = make(name), codes_of_images(7)
    with torch.no_grad():
        whole = generator(codes, LABELS)
        decoding = generator.decoding(LABELS)
        steps = [decoding.start(), *(decoding.advance(codes[:, i]) for i in range(NUM_TOKENS - 1))]
    torch.testing.assert_close(torch.stack(steps, dim=1), whole[:, :NUM_TOKENS], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_options_of_the_sampler_are_used(make, name):
    generator, draws = make(name), draws_of(7)
    for sampling in (
        TokenSampling(temperature=0.0),
        TokenSampling(temperature=2.0, top_k=3),
        TokenSampling(temperature=0.8, top_p=0.6),
    ):
        codes = generator.sample(LABELS, draws, guidance=GUIDED, sampling=sampling).codes
        assert torch.equal(codes, recomputed(generator, LABELS, draws, GUIDED, sampling))


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_the_same_in_any_batch(make, name):
    generator, draws = make(name), draws_of(7)
    keep = Keep(latents=Latents(codes=codes_of_images(7)), sigma=0.4)
    whole = generator.sample(LABELS, draws, guidance=GUIDED, keep=keep).codes
    for rows in (slice(0, 1), slice(1, 4), slice(4, 7)):
        part = Keep(latents=keep.latents[rows], sigma=0.4)
        codes = generator.sample(LABELS[rows], draws[rows], guidance=GUIDED, keep=part).codes
        assert torch.equal(codes, whole[rows])


@pytest.mark.parametrize("name", NAMES)
def test_two_rows_of_one_class_differ_only_by_their_draws(make, name):
    generator = make(name)
    labels, draws = torch.tensor([2, 2]), draws_of(2)
    twins = Draws(seed=draws.seed, indices=torch.tensor([1, 1]), total=2)
    different = generator.sample(labels, draws, guidance=NONE).codes
    assert not torch.equal(different[0], different[1])
    same = generator.sample(labels, twins, guidance=NONE).codes
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[1], different[1])


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_off_while_sampling_and_modes_are_restored(make, name):
    generator, draws = make(name), draws_of(7)
    expected = generator.sample(LABELS, draws, guidance=NONE).codes
    generator.train()
    frozen = next(module for module in generator.children() if list(module.children()) == [])
    frozen.eval()
    assert torch.equal(generator.sample(LABELS, draws, guidance=NONE).codes, expected)
    assert not frozen.training
    assert all(module.training for module in generator.modules() if module is not frozen)


@pytest.mark.parametrize("name", NAMES)
def test_samples_can_be_trained_on(make, name):
    generator = make(name)
    latents = generator.sample(LABELS, draws_of(7), guidance=NONE)
    generator.loss(latents, LABELS, draws=draws_of(7), progress=0.0)["cross_entropy"].backward()


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_valid_under_bfloat16(make, name):
    generator, draws = make(name), draws_of(7)
    with torch.autocast("cpu", torch.bfloat16):
        codes = generator.sample(LABELS, draws, guidance=GUIDED).codes
        decoding = generator.decoding(LABELS)
        with torch.no_grad():
            decoding.start()
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < CODEBOOK_SIZE
    more = torch.zeros(7, 2, 1, 12)
    assert all(cached.dtype == torch.bfloat16 for cached in decoding.caches[0].extend(more, more))
    whole = generator.sample(LABELS, draws, guidance=NONE).codes
    with torch.autocast("cpu", torch.bfloat16):
        rounded = generator.sample(LABELS, draws, guidance=NONE).codes
    assert torch.equal(rounded[:, 0], whole[:, 0]), "rounding changes few samples"


# --- guidance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_guidance_of_scale_0_samples_without_the_class(make, name):
    generator, draws = make(name), draws_of(7)
    codes = generator.sample(LABELS, draws, guidance=Guidance(scale=0.0)).codes
    null = torch.full_like(LABELS, NUM_CLASSES)
    assert torch.equal(codes, generator.sample(null, draws, guidance=NONE).codes)


def test_guidance_starts_at_its_start(make):
    generator, draws = make("rar"), draws_of(7)
    free = generator.sample(LABELS, draws, guidance=NONE).codes
    late = generator.sample(LABELS, draws, guidance=Guidance(scale=8.0, start=0.5)).codes
    assert torch.equal(late[:, :6], free[:, :6])
    assert not torch.equal(late, free)


@pytest.mark.parametrize(("guidance", "rows"), [(NONE, 7), (GUIDED, 14)], ids=["free", "guided"])
def test_unconditional_rows_are_computed_only_for_guidance_and_in_the_same_pass(make, guidance, rows, monkeypatch):
    generator = make("rar")
    seen = []
    begin = generator.decoding
    monkeypatch.setattr(generator, "decoding", lambda labels: seen.append(len(labels)) or begin(labels))
    generator.sample(LABELS, draws_of(7), guidance=guidance)
    assert seen == [rows]


@pytest.mark.parametrize("option", ["scale", "power"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_guidance_must_be_finite(option, value):
    with pytest.raises(ValueError, match=option):
        Guidance(**{option: value})


@pytest.mark.parametrize("name", NAMES)
def test_guidance_needs_label_dropout(make, name):
    generator = make(name, label_dropout=0.0)
    with pytest.raises(RobustokError, match="label dropout"):
        [*generate(generator, LABELS, draws_of(7), guidance=GUIDED, batch_size=2)]
    assert [*generate(generator, LABELS, draws_of(7), guidance=NONE, batch_size=2)]


# --- keeping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_sigma_1_keeps_everything_and_sigma_0_nothing(make, name):
    generator, draws = make(name), draws_of(7)
    latents = Latents(codes=codes_of_images(7))
    kept = generator.sample(LABELS, draws, guidance=GUIDED, keep=Keep(latents=latents, sigma=1.0)).codes
    assert torch.equal(kept, latents.codes)
    free = generator.sample(LABELS, draws, guidance=GUIDED, keep=Keep(latents=latents, sigma=0.0)).codes
    assert torch.equal(free, generator.sample(LABELS, draws, guidance=GUIDED).codes)


@pytest.mark.parametrize("name", NAMES)
def test_each_token_is_kept_with_probability_sigma_and_the_rest_is_sampled(make, name):
    generator, count, sigma = make(name), 300, 0.7
    draws, labels = draws_of(count), torch.arange(count) % NUM_CLASSES
    codes = codes_of_images(count)
    sampled = generator.sample(labels, draws, guidance=NONE, keep=Keep(latents=Latents(codes=codes), sigma=sigma)).codes
    mask = draws.child("keep").uniform(NUM_TOKENS) < sigma
    assert torch.equal(sampled[mask], codes[mask])
    assert mask.float().mean().item() == pytest.approx(sigma, abs=4 * (sigma * (1 - sigma) / mask.numel()) ** 0.5)
    assert (sampled[~mask] == codes[~mask]).float().mean() < 0.3, "other tokens come from the model"


def test_latents_without_codes_cannot_be_kept(make):
    keep = Keep(latents=Latents(vectors=torch.zeros(7, NUM_TOKENS, 4)), sigma=0.5)
    with pytest.raises(ValueError, match="latents with codes"):
        make("rar").sample(LABELS, draws_of(7), guidance=NONE, keep=keep)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_mean_negative_log_likelihood_of_the_codes(make, name):
    options = {} if name == "rar" else {"token_dropout": 0.0}
    generator, draws, codes = make(name, **options), draws_of(7), codes_of_images(7)
    dropped = draws.child("label_dropout").uniform() < 0.1
    generator.training = True  # only this flag: labels are dropped, submodules stay in eval mode
    surprises = []
    for row in range(7):
        label = torch.tensor([NUM_CLASSES if dropped[row] else LABELS[row]])
        row_codes = codes[row : row + 1]
        order = generator.orders(draws[row : row + 1], 0.0) if name == "rar" else torch.arange(NUM_TOKENS)[None]
        logits = generator(row_codes, label, order) if name == "rar" else generator(row_codes, label)
        surprises += [
            logits[0, i].logsumexp(0) - logits[0, i, row_codes[0, position]]
            for i, position in enumerate(order[0].tolist())
        ]
    loss = generator.loss(Latents(codes=codes), LABELS, draws=draws, progress=0.0)["cross_entropy"]
    torch.testing.assert_close(loss, torch.stack(surprises).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_losses_of_two_halves_are_those_of_the_batch(make, name):
    generator, draws, latents = make(name), draws_of(6), Latents(codes=codes_of_images(6))
    whole = generator.loss(latents, LABELS[:6], draws=draws, progress=0.6)["cross_entropy"]
    halves = [
        generator.loss(latents[rows], LABELS[:6][rows], draws=draws[rows], progress=0.6)["cross_entropy"]
        for rows in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(torch.stack(halves).mean(), whole)


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_dropped_at_their_rate(make, name):
    generator, draws = make(name, label_dropout=0.25), draws_of(4000)
    every = torch.arange(4000) % NUM_CLASSES
    assert torch.equal(generator.with_dropped_labels(every, draws), every), "not in eval mode"
    generator.training = True
    labels = generator.with_dropped_labels(torch.arange(4000) % NUM_CLASSES, draws)
    null = labels == NUM_CLASSES
    assert null.float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    assert torch.equal(labels[~null], (torch.arange(4000) % NUM_CLASSES)[~null])


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_parameter(make, name):
    generator = make(name, label_dropout=0.5)
    generator.training = True
    codes = torch.arange(7 * NUM_TOKENS).reshape(7, NUM_TOKENS) % CODEBOOK_SIZE
    generator.loss(Latents(codes=codes), LABELS, draws=draws_of(7), progress=0.0)["cross_entropy"].backward()
    # A bias of the keys shifts all attention scores of a query by the same amount, which changes nothing.
    untouched = [n for n, p in generator.named_parameters() if not p.grad.abs().max() > 1e-6]
    assert untouched == ([f"blocks.{i}.attn.k_norm.bias" for i in range(2)] if name == "rar" else [])


@pytest.mark.parametrize("name", NAMES)
def test_a_code_is_predicted_only_from_those_before_it(make, name):
    generator, codes = make(name), codes_of_images(7)
    changed = codes.clone()
    changed[:, 5] = (changed[:, 5] + 1) % CODEBOOK_SIZE
    with torch.no_grad():
        before, after = generator(codes, LABELS), generator(changed, LABELS)
    torch.testing.assert_close(before[:, :6], after[:, :6], atol=1e-6, rtol=1e-6)
    assert ((before - after)[:, 6:NUM_TOKENS].abs().amax(dim=2) > 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_memorise_a_class(make, name):
    generator = make(name, label_dropout=0.0)  # in eval mode: without dropout
    latents, labels = Latents(codes=codes_of_images(2)), torch.tensor([0, 1])
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        generator.loss(latents, labels, draws=draws_of(2, seed=step), progress=1.0)["cross_entropy"].backward()
        optimizer.step()
    sampled = generator.sample(labels, draws_of(2), guidance=NONE, sampling=TokenSampling(temperature=0.0)).codes
    assert (sampled == latents.codes).float().mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_continuous_space_is_refused(make, name):
    with pytest.raises(RobustokError, match="samples codes"):
        make(name, LatentSpace(kind="continuous", num_tokens=12, width=4, grid=(3, 4)))


def test_the_loss_of_a_uniform_model_is_the_log_of_the_codebook_size(make):
    generator = make("llamagen_gpt")
    torch.nn.init.zeros_(generator.output.weight)
    loss = generator.loss(Latents(codes=codes_of_images(7)), LABELS, draws=draws_of(7), progress=0.0)
    torch.testing.assert_close(loss["cross_entropy"], F.cross_entropy(torch.zeros(1, 20), torch.tensor([0])))
