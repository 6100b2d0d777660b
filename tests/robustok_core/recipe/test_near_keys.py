"""What a user hears who writes an option under another name, or in another table."""

from __future__ import annotations

import pytest

from robustok_core import Recipe, RobustokError
from robustok_core.recipe.near_keys import COMMON_NAMES, component_keys, near_keys, recipe_keys
from robustok_core.recipe.recipe import RunConfig


def hint(registry, change: str) -> str:
    with pytest.raises(RobustokError) as caught:
        Recipe.load("main_train", overrides=[change]).resolve(registry)
    (problem,) = getattr(caught.value, "problems", [caught.value])
    return problem.hint


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ("stage.train_tokenizer.lr=1", "'optimizer.learning_rate'"),
        ("stage.train_tokenizer.num_epochs=2", "'epochs'"),
        ("stage.sample.temperature=1", "'sampling.temperature'"),
        ("stage.sample.cfg_scale=2", "'guidance.scale'"),
        ("stage.train_tokenizer.beta=0.5", "'perturbation.beta'"),
        ("stage.train_tokenizer.optimizer.lr=1", "'learning_rate'"),
        ("stage.perturbation.beta=0.5", "'perturbation.beta'"),
        ("train_tokenizer.epochs=2", "'stage.train_tokenizer.epochs'"),
        ("train_tokenizer.optimizer.learning_rate=2", "'stage.train_tokenizer.optimizer.learning_rate'"),
        ("epochs=3", "'stage.train_tokenizer.epochs' or 'stage.train_generator.epochs'"),
        ("seed=1", "'run.seed'"),
        ("generator.lr=1", "'stage.train_generator.optimizer.learning_rate'"),
        ("generator.layers=3", "'depth'"),
        ("tokenizer.vocab_size=9", "'quantizer.codebook_size'"),
        ("tokenizer.quantizer.beta=1", "'perturbation.beta'"),
        ("quantizer.codebook_size=4", "'tokenizer.quantizer.codebook_size'"),
        ("stage.evaluate_tokenizer.metrics.psnr.use=fid", "'frechet'"),
        ("stage.evaluate_generator.metrics.kid.use=FID", "'frechet'"),
        ("tokenizer.use=vqgan", "'conv_vq'"),
    ],
)
def test_a_common_name_or_a_key_of_another_table_gets_the_path_that_is_meant(registry, change, meant):
    assert hint(registry, change) == f"did you mean {meant}?"


def test_what_is_like_no_option_of_the_recipe_gets_the_keys_of_its_table(registry):
    known = hint(registry, "stage.train_tokenizer.xyzzy=1")
    assert known.startswith("known: accumulation, activation_checkpointing, batch_size")
    assert hint(registry, "xyz.abc=1").startswith("known: data, generator")


def test_a_name_of_another_kind_says_of_which(registry):
    assert hint(registry, "tokenizer.use=rar").startswith("'rar' is a generator; ")


def test_a_key_outside_of_a_recipe_gets_the_same_hint(registry):
    with pytest.raises(RobustokError, match=r"did you mean 'optimizer\.learning_rate'\?"):
        registry.spec("stage", {"use": "train_tokenizer", "epochs": 1, "batch_size": 1, "lr": 1.0})


def test_every_option_of_a_recipe_is_found_by_itself(registry):
    known = list(recipe_keys(Recipe.load("main_train").source.table, registry.find, RunConfig))
    assert ("stage", "evaluate_tokenizer", "metrics", "pfd", "perturbation", "delta") in known
    assert all(near_keys(path, known)[0][-1] == path[-1] for path in known if path[-1] not in str(COMMON_NAMES))


def test_every_common_name_stands_for_an_option_that_exists(registry):
    ends = {
        path
        for entry in registry.entries()
        for path in component_keys(entry.kind, {"use": entry.name}, (), registry.find)
    }
    ends |= {("run", "precision"), ("run", "seed"), ("sampling", "steps"), ("sampling", "temperature")}
    for name in COMMON_NAMES:
        parts = tuple(name.split("."))
        assert any(path[-len(parts) :] == parts for path in ends), name


def test_no_other_name_of_a_component_is_the_name_of_one_of_its_kind(registry):
    for entry in registry.entries():
        assert not set(entry.factory.also_called) & set(registry.names(entry.kind))
        assert all(name == name.lower() for name in entry.factory.also_called)
