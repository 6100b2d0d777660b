"""The recipes at the paper's scale have the published sizes and options (built on the meta device)."""

from __future__ import annotations

import math
import re
from pathlib import Path

import attrs
import pytest
import tomli
import torch

from robustok_core import Recipe
from robustok_core.recipe.source import find_recipe


@pytest.fixture(scope="module")
def recipe(registry):
    return Recipe.load("imagenet256/robustok_tokenizer").resolve(registry)


def test_the_tokenizer_has_the_papers_size(recipe):
    with torch.device("meta"):
        tokenizer = recipe.tables["tokenizer"].build()
    trained = sum(p.numel() for p in tokenizer.parameters() if p.requires_grad)
    assert round(trained / 1e6, 1) == 172.3
    assert tokenizer.space.describe() == "discrete, 256 tokens of width 64, K=4096"


def test_the_learning_rate_follows_the_released_schedule(recipe):
    rate = recipe.stages[0].spec.config.optimizer.rate_at
    epoch = 1 / 200
    assert rate(0.0) == 1e-5
    assert rate(1 * epoch) == pytest.approx(2.4e-4)
    assert rate(100.5 * epoch) == pytest.approx((2.4e-4 + 5e-5) / 2)
    assert rate(1.0) == pytest.approx(5e-5)


def test_the_perturbation_is_annealed_between_epochs_40_and_120(recipe):
    config = recipe.tables["perturbation"].config
    assert (config.beta, config.alpha, config.delta) == (0.1, 1.0, 100)
    anneal = config.anneal
    assert (anneal.start * 200, anneal.end * 200, anneal.ratio) == (40, 120, 0.5)


def test_presets_choose_between_paper_and_released_code_and_add_no_component(registry):
    for name, neighbours, on in (("paper", "codeword", "clean"), ("released", "latent", "perturbed")):
        large = Recipe.load("imagenet256/robustok_tokenizer", presets=[f"presets/{name}"]).resolve(registry).table()
        assert large["perturbation"]["neighbours"] == neighbours
        assert large["stage"][0]["losses"]["semantic"]["on"] == on
        small = Recipe.load("main_train", presets=[f"presets/{name}"]).resolve(registry).table()
        assert small["perturbation"]["neighbours"] == neighbours
        assert "semantic" not in small["stage"][0]["losses"]


def test_the_paper_preset_is_the_default(registry):
    plain = Recipe.load("imagenet256/robustok_tokenizer").resolve(registry)
    preset = Recipe.load("imagenet256/robustok_tokenizer", presets=["presets/paper"]).resolve(registry)
    assert plain.table() == preset.table()


# --- generators -----------------------------------------------------------------------------------

GENERATORS = ("rar_b", "rar_l", "llamagen_b", "llamagen_l")
IMAGENET = 1_281_167  # training images


def resolved(name: str, registry):
    return Recipe.load(f"imagenet256/{name}").resolve(registry)


def stage_of(name: str, stage: str, registry):
    (config,) = [named.spec.config for named in resolved(name, registry).stages if named.name == stage]
    return config


@pytest.fixture(scope="module")
def space(recipe):
    """The latent space of the published tokenizer: K = 4096."""
    with torch.device("meta"):
        return recipe.tables["tokenizer"].build().space


def size(spec, space) -> int:
    with torch.device("meta"):
        generator = spec.build(space, 1000)
    assert generator.space == space
    return sum(p.numel() for p in generator.parameters())


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_goes_from_a_loaded_tokenizer_to_its_evaluation(name, registry):
    recipe = resolved(name, registry)
    assert recipe.run.name == name
    assert list(recipe.load) == ["tokenizer"]
    assert [stage.name for stage in recipe.stages] == ["tokenize", "train_generator", "sample", "evaluate_generator"]


@pytest.mark.parametrize(("name", "millions"), [("rar_b", 265.6), ("rar_l", 468.0)])
def test_rar_has_its_published_size(name, millions, registry, space):
    assert round(size(resolved(name, registry).tables["generator"], space) / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "width", "millions"), [("llamagen_b", 768, 110.9), ("llamagen_l", 1024, 342.9)])
def test_llamagen_has_its_published_size_without_the_rows_of_missing_codes(name, width, millions, registry, space):
    """The published numbers are for K = 16384. Each code has a row in the embedding and one in the untied output."""
    spec = resolved(name, registry).tables["generator"]
    published = size(spec, attrs.evolve(space, codebook_size=16384))
    assert round(published / 1e6, 1) == millions
    assert size(spec, space) == published - 2 * width * (16384 - 4096)


@pytest.mark.parametrize("name", ["rar_b", "rar_l"])
def test_rar_is_trained_for_250_000_steps_as_published(name, registry):
    config = stage_of(name, "train_generator", registry)
    steps = IMAGENET // config.batch_size * config.epochs
    assert steps == 250_000
    rate = config.optimizer.rate_at
    assert rate(31_250 / steps) == pytest.approx(2e-4)  # half of the warm-up
    assert rate(62_500 / steps) == pytest.approx(4e-4)
    assert rate(1.0) == pytest.approx(1e-5)
    order = resolved(name, registry).tables["generator"].config.random_order
    assert [order.share(step / steps) for step in (0, 125_000, 156_250, 187_500)] == [1.0, 1.0, 0.5, 0.0]
    assert (config.optimizer.betas, config.optimizer.weight_decay, config.optimizer.clip) == ((0.9, 0.96), 0.03, 1.0)


@pytest.mark.parametrize("name", ["llamagen_b", "llamagen_l"])
def test_llamagen_is_trained_at_a_constant_rate_as_published(name, registry):
    config = stage_of(name, "train_generator", registry)
    assert (config.epochs, config.batch_size) == (300, 256)
    assert {config.optimizer.rate_at(progress) for progress in (0.0, 0.5, 1.0)} == {1e-4}
    assert (config.optimizer.betas, config.optimizer.weight_decay, config.optimizer.clip) == ((0.9, 0.95), 0.05, 1.0)
    tokenize = stage_of(name, "tokenize", registry)
    assert (tokenize.views, tokenize.crop_ranges) == ("ten_crop", [1.1, 1.05])


@pytest.mark.parametrize(
    ("name", "temperature", "scale", "power"), [("rar_b", 1.02, 6.0, 1.15), ("rar_l", 1.04, 6.75, 1.01)]
)
def test_rar_is_sampled_with_the_published_ramp_of_guidance(name, temperature, scale, power, registry):
    config = stage_of(name, "sample", registry)
    assert sampler(name, registry).temperature == temperature
    for position in (0, 64, 128, 255):
        ramp = 0.5 * (1 - math.cos(math.pi * (position / 256) ** power))
        assert config.guidance.weight(position / 256) == pytest.approx(1 + (scale - 1) * ramp)


@pytest.mark.parametrize("name", ["llamagen_b", "llamagen_l"])
def test_llamagen_is_sampled_from_all_codes_with_constant_guidance(name, registry):
    config, options = stage_of(name, "sample", registry), sampler(name, registry)
    assert {config.guidance.weight(position / 256) for position in (0, 128, 255)} == {2.0}
    assert (options.temperature, options.top_k, options.top_p) == (1.0, 0, 1.0)


def sampler(name: str, registry):
    """The generator's sampler with the recipe's options."""
    factory = resolved(name, registry).tables["generator"].factory
    return factory.Sampling(**stage_of(name, "sample", registry).sampling)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_are_evaluated_as_in_adm(name, registry):
    sample, evaluate = (stage_of(name, stage, registry) for stage in ("sample", "evaluate_generator"))
    assert sample.num_samples == 50_000
    assert sample.classes == []  # all classes, in turn
    assert evaluate.limit is None
    assert Path(evaluate.reference).name == "VIRTUAL_imagenet256_labeled.npz"
    assert {spec.name for spec in evaluate.metrics.values()} == {"frechet", "inception_score", "precision_recall"}
    assert {spec.config.features.name for spec in evaluate.metrics.values()} == {"inception"}


@pytest.mark.parametrize(
    ("name", "sigma", "discriminator"),
    [
        ("robustok_b", 0.7, "reuse"),
        ("robustok_l", 0.7, "reuse"),
        ("llamagen", 0.95, "fresh"),
        ("gigatok", 0.8, "fresh"),
        ("maetok", 0.9, "reuse"),
    ],
)
def test_post_training_has_the_papers_sigma_pairs_and_epochs(registry, name, sigma, discriminator):
    recipe = Recipe.load(f"imagenet256/post_train_{name}").resolve(registry)
    pairs, training, comparison, samples, evaluation = (stage.spec.config for stage in recipe.stages)
    assert (pairs.sigma, pairs.num_pairs, pairs.control) == ([sigma], 200_000, True)
    assert (training.epochs, training.batch_size, training.discriminator) == (40, 1024, discriminator)
    assert training.optimizer.weight_decay == 0.0
    assert recipe.tables["post_trainer"].config.pairs == "images"
    assert recipe.tables["post_trainer"].config.guidance == comparison.guidance == samples.guidance
    assert comparison.sampling == samples.sampling
    assert (samples.num_samples, evaluation.reference) == (50_000, "data/VIRTUAL_imagenet256_labeled.npz")


def test_the_diffusion_model_of_maetok_has_its_published_size_training_and_guidance(registry):
    with torch.device("meta"):
        space = resolved("maetok", registry).tables["tokenizer"].build().space
    name = "maetok_diffusion_xl"
    positions = 128 * 1152  # fixed, but counted as parameters in the published number
    assert round((size(resolved(name, registry).tables["generator"], space) + positions) / 1e6, 1) == 675.0
    config = stage_of(name, "train_generator", registry)
    assert {config.optimizer.rate_at(progress) for progress in (0.0, 0.5, 1.0)} == {1e-4}
    guidance, options = stage_of(name, "sample", registry).guidance, sampler(name, registry)
    assert (options.method, options.steps) == ("euler_maruyama", 250)
    # Guided while t < 0.7; at t a share 1 - t is done.
    assert [guidance.weight(1 - t) for t in (1.0, 0.71, 0.69, 0.01)] == [1.0, 1.0, 1.75, 1.75]


def test_the_published_pair_of_maetok_is_loaded_as_its_recipe_says(registry):
    text = find_recipe("imagenet256/maetok_diffusion_xl").read_text()
    lines = "\n".join(re.findall(r"^# +((?:tokenizer|generator) = .*)$", text, flags=re.MULTILINE))
    recipe = tomli.loads(text)
    recipe["load"] = tomli.loads(lines)
    recipe["stage"] = [stage for stage in recipe["stage"] if stage["use"] not in ("tokenize", "train_generator")]
    load = Recipe.from_table(recipe).resolve(registry).load
    assert {name: entry.importer.name for name, entry in load.items()} == {"tokenizer": "maetok", "generator": "sit"}
    assert load["generator"].importer.config.statistics == "maetok/config.json"


def test_pairs_and_samples_of_maetok_use_the_same_sampler(registry):
    recipe = resolved("post_train_maetok", registry)
    factory = resolved("maetok_diffusion_xl", registry).tables["generator"].factory
    comparison = next(stage.spec.config for stage in recipe.stages if stage.name == "compare_decoders")
    pairs, samples = (
        factory.Sampling(**options) for options in (recipe.tables["post_trainer"].config.sampling, comparison.sampling)
    )
    assert (pairs.method, samples.method, samples.steps) == ("euler_maruyama", "euler_maruyama", 250)
    # A tenth of the way takes a tenth of the steps.
    assert pairs.steps == samples.steps // 10
    assert "noise_pfd" in comparison.tokenizer_metrics


@pytest.mark.parametrize(
    ("name", "trained", "space"),
    [
        ("maetok", 183.2, "continuous, 128 tokens of width 32"),
        ("rae", 415.1, "continuous, 256 tokens of width 768"),  # 415.4 with the fixed positions
        ("ldetok", 171.6, "continuous, 256 tokens of width 16"),
    ],
)
def test_continuous_tokenizers_have_the_sizes_in_their_recipes_headers(registry, name, trained, space):
    recipe = Recipe.load(f"imagenet256/{name}").resolve(registry)
    with torch.device("meta"):
        tokenizer = recipe.tables["tokenizer"].build()
    assert round(sum(p.numel() for p in tokenizer.parameters() if p.requires_grad) / 1e6, 1) == trained
    assert tokenizer.space.describe() == space
    if "perturbation" in recipe.tables:
        recipe.tables["perturbation"].build().check(tokenizer.space, recipe.stages[0].spec.config.batch_size)


def test_continuous_tokenizers_are_trained_with_the_published_noise_and_discriminator(registry):
    rae, ldetok = (Recipe.load(f"imagenet256/{name}").resolve(registry) for name in ("rae", "ldetok"))
    noise, mixture = (recipe.tables["perturbation"].config for recipe in (rae, ldetok))
    assert (noise.beta, noise.alpha, noise.tau, noise.scale) == (1.0, 1.0, 0.8, "absolute")
    assert (mixture.beta, mixture.alpha, mixture.tau, mixture.gamma) == (1.0, 1.0, 1.0, 3.0)
    adversarial = rae.stages[0].spec.config.losses["adversarial"].config
    assert (adversarial.start * 16, adversarial.discriminator_start * 16, adversarial.weight) == (8, 6, 0.75)
    rate = rae.stages[0].spec.config.optimizer.rate_at
    assert (rate(0.0), rate(1 / 16), rate(1.0)) == (0.0, pytest.approx(2e-4), pytest.approx(2e-5))
    assert ldetok.stages[0].spec.config.losses["adversarial"].config.start * 200 == 100
