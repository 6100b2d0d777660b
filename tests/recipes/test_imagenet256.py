"""The recipes at the paper's scale: the right sizes, without memory."""

from __future__ import annotations

import pytest
import torch

from robustok_core import Recipe


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


def test_presets_choose_readings_and_add_no_component(registry):
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
