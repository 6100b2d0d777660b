"""MaskGIT: masking, the loss, and the order in which masks are filled."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.maskgit import MaskGITSampling, gumbel, mask_tokens, masked_count, scheduled
from robustok_toolkit.generating import generate

SPACE = LatentSpace(kind="discrete", num_tokens=16, width=4, codebook_size=32, grid=(4, 4))
MASK = 32
TINY = {"use": "maskgit", "width": 32, "depth": 2, "num_heads": 2, "mlp_width": 48}
FREE = Guidance()


def make(space: LatentSpace = SPACE, **options: object):
    torch.manual_seed(0)
    return load_registry().build("generator", {**TINY, **options}, space, 10).eval()


def sharp(space: LatentSpace = SPACE, **options: object):
    """A model with a non-uniform distribution; with initial weights all codes are about equally likely."""
    model = make(space, **options)
    for parameter in model.parameters():
        parameter.data *= 20 if parameter.ndim > 1 else 1
    return model


@pytest.fixture(scope="module")
def model():
    return sharp()


def loss_of(model, codes, labels, draws) -> float:
    with torch.no_grad():
        return float(model.loss(Latents(codes=codes), labels, draws=draws, progress=0.0)["cross_entropy"])


def codes_of(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(32, (count, 16), generator=torch.Generator().manual_seed(seed))


class Watch:
    """Records a model's inputs (tokens, labels) and outputs (logits)."""

    def __init__(self, model) -> None:
        self.tokens, self.labels, self.logits = [], [], []
        self.handle = model.register_forward_hook(self.note)

    def note(self, module, read, answered) -> None:
        self.tokens.append(read[0].clone())
        self.labels.append(read[1].clone())
        self.logits.append(answered.detach())

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.handle.remove()


# --- training -------------------------------------------------------------------------------------


def test_the_number_of_masked_tokens_is_the_cosine_of_the_images_random_number():
    draws = Draws.for_rows(3, 500)
    masked, average = mask_tokens(draws, 16)
    u = draws.child("ratio").uniform().double()
    expected = [max(1, math.ceil(16 * math.cos(math.pi / 2 * float(number)))) for number in u]
    assert masked.sum(1).tolist() == expected
    assert float(average) == pytest.approx(sum(expected) / 500)


def test_at_least_one_token_is_masked_and_at_most_all():
    assert masked_count(torch.tensor([0.0, 0.6, 2 / 3, 1 - 2**-24]), 256).tolist() == [256, 151, 128, 1]


def test_the_number_of_masked_tokens_has_the_cosines_distribution():
    masked, _ = mask_tokens(Draws.for_rows(0, 20_000), 4)
    counts = masked.sum(1)
    # ceil(4 cos(pi u / 2)) = 1 where u > 2/pi acos(1/4), and so on
    edges = [1.0, *(2 / math.pi * math.acos(share) for share in (0.25, 0.5, 0.75)), 0.0]
    expected = [high - low for high, low in itertools.pairwise(edges)]
    shares = [float((counts == number).float().mean()) for number in (1, 2, 3, 4)]
    assert shares == pytest.approx(expected, abs=0.015)  # 4 standard errors


def test_every_position_is_masked_equally_often():
    masked, average = mask_tokens(Draws.for_rows(1, 20_000), 16)
    assert masked.float().mean(0).tolist() == pytest.approx([float(average) / 16] * 16, abs=0.015)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_smoothed_cross_entropy_of_the_masked_tokens(smoothing):
    model, codes, labels = sharp(label_smoothing=smoothing), codes_of(6), torch.arange(6)
    with Watch(model) as seen:
        loss = loss_of(model, codes, labels, Draws.for_rows(5, 6))
    (tokens,), (logits,) = seen.tokens, seen.logits
    masked = tokens == MASK
    assert torch.equal(tokens[~masked], codes[~masked])
    log_p = logits.double() - logits.double().exp().sum(-1, keepdim=True).log()
    terms = [
        -(1 - smoothing) * log_p[row, position, codes[row, position]] - smoothing * log_p[row, position].mean()
        for row, position in masked.nonzero().tolist()
    ]
    assert loss == pytest.approx(float(sum(terms)) / len(terms), rel=1e-5)


def test_the_loss_of_a_batch_is_the_mean_over_its_micro_batches(model):
    codes, labels, draws = codes_of(6), torch.arange(6), Draws.for_rows(5, 6)
    losses = [loss_of(model, codes[r], labels[r], draws[r]) for r in (slice(0, 2), slice(2, 4), slice(4, 6))]
    assert sum(losses) / 3 == pytest.approx(loss_of(model, codes, labels, draws), rel=1e-5)


def test_labels_are_dropped_only_in_training():
    model, codes, labels = make(label_dropout=0.25), codes_of(1).expand(2000, 16), torch.full((2000,), 7)
    with Watch(model) as seen:
        loss_of(model.train(), codes, labels, Draws.for_rows(0, 2000))
        loss_of(model.eval(), codes, labels, Draws.for_rows(0, 2000))
    trained, evaluated = seen.labels
    assert set(trained.tolist()) == {7, 10}
    assert float((trained == 10).float().mean()) == pytest.approx(0.25, abs=0.04)
    assert set(evaluated.tolist()) == {7}


def test_dropout_acts_only_in_training():
    model, tokens, labels = make(dropout=0.5), codes_of(1), torch.zeros(1, dtype=torch.int64)
    assert torch.equal(model(tokens, labels), model(tokens, labels))
    model.train()
    assert not torch.equal(model(tokens, labels), model(tokens, labels))


def test_every_prediction_depends_on_every_token_and_the_class(model):
    tokens, labels = codes_of(1), torch.tensor([3])
    before = model(tokens, labels)
    for position in range(16):
        other = tokens.clone()
        other[0, position] = MASK
        assert (model(other, labels) != before).any(-1).all()
    assert (model(tokens, torch.tensor([4])) != before).any(-1).all()


def test_four_images_are_memorised_and_sampled_back():
    model, codes, labels = make(dropout=0.0, label_dropout=0.0, label_smoothing=0.0), codes_of(4), torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(250):
        draws = Draws.for_rows(step, 32)
        batch = Latents(codes=codes.repeat(8, 1))
        loss = model.loss(batch, labels.repeat(8), draws=draws, progress=0.0)["cross_entropy"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01
    model.eval()
    assert torch.equal(model.sample(labels, Draws.for_rows(0, 4), guidance=FREE).codes, codes)


# --- sampling -------------------------------------------------------------------------------------


def test_the_number_of_masked_tokens_follows_the_cosine(model):
    with Watch(model) as seen:
        sampled = model.sample(torch.arange(3), Draws.for_rows(0, 3), guidance=FREE).codes
    counts = [(tokens == MASK).sum(1).tolist() for tokens in [*seen.tokens, sampled]]
    # 16 cos(pi s / 16), rounded down, for s = 0 .. 8
    assert counts == [[count] * 3 for count in (16, 15, 14, 13, 11, 8, 6, 3, 0)]


@pytest.mark.parametrize("steps", [1, 3, 5, 64])
def test_any_number_of_steps_ends_with_codes(model, steps):
    with Watch(model) as seen:
        sampling = MaskGITSampling(steps=steps)
        sampled = model.sample(torch.arange(2), Draws.for_rows(0, 2), guidance=FREE, sampling=sampling).codes
    assert len(seen.tokens) == steps
    assert sampled.shape == (2, 16)
    assert 0 <= sampled.min() <= sampled.max() < 32


def test_half_of_few_tokens_is_exactly_half():
    left = scheduled(torch.tensor([0, 1, 2, 3, 4, 16]), 3, 16)  # after 1/3, 2/3 and all of the steps
    assert left[1].tolist() == [0, 0, 1, 1, 2, 8]
    assert left[2].tolist() == [0] * 6


def test_a_token_once_revealed_stays(model):
    with Watch(model) as seen:
        sampled = model.sample(torch.arange(3), Draws.for_rows(0, 3), guidance=FREE).codes
    for tokens in seen.tokens:
        known = tokens != MASK
        assert torch.equal(tokens[known], sampled[known])


def test_along_given_codes_a_step_reads_them_in_place_of_those_that_were_drawn(model):
    labels, draws, real = torch.arange(3), Draws.for_rows(0, 3), torch.arange(48).view(3, 16) % 32
    with Watch(model) as seen:
        forced = model.sample_forced(labels, draws, real=Latents(codes=real), guidance=FREE).codes
    assert all(torch.equal(tokens[tokens != MASK], real[tokens != MASK]) for tokens in seen.tokens)
    assert not torch.equal(forced, real)
    sampled = model.sample(labels, draws, guidance=FREE)
    assert torch.equal(model.sample_forced(labels, draws, real=sampled, guidance=FREE).codes, sampled.codes)


def greedy(model, label: int, steps: int, weights: list[float], start: torch.Tensor | None = None) -> list[int]:
    """MaskGIT without noise for one image, in plain loops: the most likely codes, the most confident first."""
    tokens = [MASK] * 16 if start is None else start.tolist()
    to_draw = tokens.count(MASK)
    for step in range(steps):
        read = torch.tensor([tokens])
        with torch.no_grad():
            conditional = model(read, torch.tensor([label]))[0].double()
            unconditional = model(read, torch.tensor([10]))[0].double()
        p = torch.softmax(unconditional + weights[step] * (conditional - unconditional), -1)
        masked = [position for position, token in enumerate(tokens) if token == MASK]
        masked.sort(key=lambda position: float(p[position].max()), reverse=True)
        stay = math.floor(to_draw * math.cos(math.pi / 2 * (step + 1) / steps) + 1e-9)
        for position in masked[: len(masked) - stay]:
            tokens[position] = int(p[position].argmax())
    return tokens


@pytest.mark.parametrize(
    ("guidance", "weights"),
    [
        (Guidance(), [1.0] * 5),
        (Guidance(scale=0.0), [0.0] * 5),
        (Guidance(scale=4.0), [4.0] * 5),
        (Guidance(scale=6.0, schedule="linear"), [1.0, 2.0, 3.0, 4.0, 5.0]),
        (Guidance(scale=3.0, start=0.4, stop=0.7), [1.0, 1.0, 3.0, 3.0, 1.0]),
    ],
)
def test_without_noise_the_most_confident_codes_come_first_with_and_without_guidance(model, guidance, weights):
    sampling = MaskGITSampling(steps=5, temperature=0.0, choice_temperature=0.0)
    sampled = model.sample(torch.arange(4), Draws.for_rows(0, 4), guidance=guidance, sampling=sampling).codes
    assert sampled.tolist() == [greedy(model, label, 5, weights) for label in range(4)]


def test_the_first_token_is_chosen_by_confidence_under_the_annealed_noise():
    space = LatentSpace(kind="discrete", num_tokens=4, width=4, codebook_size=32)
    model, count = sharp(space), 10_000
    sampling = MaskGITSampling(steps=3, temperature=0.0, choice_temperature=0.9)
    with Watch(model) as seen:
        labels = torch.zeros(count, dtype=torch.int64)
        model.sample(labels, Draws.for_rows(0, count), guidance=FREE, sampling=sampling)
    first = (seen.tokens[1] != MASK).float()  # 4 cos(pi/6) = 3.5: one token of four is revealed
    assert first.sum(1).eq(1).all()
    sure = seen.logits[0][0].log_softmax(-1).max(-1).values
    # the largest of x_i + t Gumbel_i is the i-th with probability softmax(x / t); t has fallen by a third
    expected, before = torch.softmax(sure / 0.6, 0), torch.softmax(sure / 0.9, 0)
    assert (expected - before).abs().max() > 0.03
    assert first.mean(0).tolist() == pytest.approx(expected.tolist(), abs=0.015)


def test_codes_are_sampled_with_the_models_probabilities_at_that_temperature(model):
    count = 4000
    with Watch(model) as seen:
        labels, sampling = torch.zeros(count, dtype=torch.int64), MaskGITSampling(steps=1, temperature=3.0)
        sampled = model.sample(labels, Draws.for_rows(0, count), guidance=FREE, sampling=sampling).codes
    for position in (0, 15):
        shares = sampled[:, position].bincount(minlength=32) / count
        assert shares.tolist() == pytest.approx((seen.logits[0][0, position] / 3.0).softmax(0).tolist(), abs=0.03)


def test_gumbel_noise_is_finite_and_has_its_mean():
    assert gumbel(torch.tensor([0.0, 1.0 - 2.0**-24])).isfinite().all()
    assert float(gumbel(Draws.for_rows(0, 50_000).uniform()).mean()) == pytest.approx(0.5772, abs=0.02)


def test_a_sample_depends_only_on_its_label_and_row(model):
    labels, draws, guidance = torch.tensor([3, 1, 4, 1, 5]), Draws.for_rows(9, 5), Guidance(scale=2.0)
    keep = Keep(latents=Latents(codes=codes_of(5)), sigma=0.3)
    whole = model.sample(labels, draws, guidance=guidance, keep=keep).codes
    for rows in (slice(0, 1), slice(1, 3), torch.tensor([4, 0])):
        part = Keep(latents=keep.latents[rows], sigma=0.3)
        assert torch.equal(model.sample(labels[rows], draws[rows], guidance=guidance, keep=part).codes, whole[rows])
    assert not torch.equal(whole[1], whole[3])


def test_sampling_is_without_dropout_and_restores_the_mode():
    model, labels, draws = sharp(dropout=0.5), torch.arange(3), Draws.for_rows(0, 3)
    expected = model.sample(labels, draws, guidance=FREE).codes
    assert torch.equal(model.train().sample(labels, draws, guidance=FREE).codes, expected)
    assert model.training


def test_guidance_reads_both_classes_in_one_pass_and_only_where_it_applies(model):
    labels, guidance = torch.tensor([3, 7]), Guidance(scale=2.0, start=0.5)
    with Watch(model) as seen:
        model.sample(labels, Draws.for_rows(0, 2), guidance=guidance, sampling=MaskGITSampling(steps=4))
    assert [read.tolist() for read in seen.labels] == [[3, 7], [3, 7], [3, 7, 10, 10], [3, 7, 10, 10]]


def test_guidance_is_refused_without_label_dropout():
    with pytest.raises(RobustokError, match="trained with label dropout"):
        [
            *generate(
                make(label_dropout=0.0),
                torch.arange(2),
                Draws.for_rows(0, 2),
                guidance=Guidance(scale=2.0),
                batch_size=2,
            )
        ]


# --- keeping tokens of a real image ---------------------------------------------------------------


def test_sigma_1_is_the_real_image(model):
    codes = codes_of(4)
    keep = Keep(latents=Latents(codes=codes), sigma=1.0)
    assert torch.equal(model.sample(torch.arange(4), Draws.for_rows(0, 4), guidance=FREE, keep=keep).codes, codes)


def test_sigma_0_is_free_generation(model):
    keep = Keep(latents=Latents(codes=codes_of(4)), sigma=0.0)
    draws, labels = Draws.for_rows(0, 4), torch.arange(4)
    free = model.sample(labels, draws, guidance=FREE).codes
    assert torch.equal(model.sample(labels, draws, guidance=FREE, keep=keep).codes, free)


def test_kept_tokens_are_known_from_the_start_and_the_schedule_counts_the_rest(model):
    codes, draws = codes_of(6), Draws.for_rows(2, 6)
    kept = draws.child("keep").uniform(16) < 0.4
    keep = Keep(latents=Latents(codes=codes), sigma=0.4)
    with Watch(model) as seen:
        sampled = model.sample(torch.arange(6), draws, guidance=FREE, keep=keep).codes
    assert torch.equal(seen.tokens[0], torch.where(kept, codes, MASK))
    for tokens in [*seen.tokens, sampled]:
        assert torch.equal(tokens[kept], codes[kept])
    left = (~kept).sum(1).tolist()
    assert len(set(left)) > 1
    for step, tokens in enumerate(seen.tokens):
        expected = [math.floor(count * math.cos(math.pi / 2 * step / 8)) for count in left]
        assert (tokens == MASK).sum(1).tolist() == expected


def test_a_share_sigma_of_the_tokens_is_kept():
    draws, model = Draws.for_rows(0, 2000), make()
    zeros = Latents(codes=torch.zeros(2000, 16, dtype=torch.int64))
    with Watch(model) as seen:
        keep, labels = Keep(latents=zeros, sigma=0.7), torch.zeros(2000, dtype=torch.int64)
        model.sample(labels, draws, guidance=FREE, keep=keep, sampling=MaskGITSampling(steps=1))
    assert float((seen.tokens[0] == 0).float().mean()) == pytest.approx(0.7, abs=0.01)


def test_kept_tokens_are_read(model):
    codes = codes_of(4)
    sampling = MaskGITSampling(steps=3, temperature=0.0, choice_temperature=0.0)
    keep, draws = Keep(latents=Latents(codes=codes), sigma=0.5), Draws.for_rows(2, 4)
    sampled = model.sample(torch.arange(4), draws, guidance=FREE, keep=keep, sampling=sampling).codes
    start = torch.where(draws.child("keep").uniform(16) < 0.5, codes, MASK)
    assert sampled.tolist() == [greedy(model, label, 3, [1.0] * 3, start[label]) for label in range(4)]
