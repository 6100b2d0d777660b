"""The benchmark of a device: what it counts operations for, and of which peak it reports a share."""

from __future__ import annotations

import argparse

import pytest
import torch

from robustok_core import Recipe, load_registry


@pytest.fixture
def device(script):
    return script("device")


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_is_that_of_the_device_by_its_name(device, monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert device.peak_flops("cuda") == peak
    assert device.peak_flops("cpu") is None


@pytest.fixture
def completed(device, tmp_path):
    """A recipe at the paper's size, and a registry that has its data."""

    def completed(recipe: str, stage: str, *, steps: int = 2, rounds: int = 1):
        table, registry = getattr(device, recipe)(tmp_path, tiny=False), load_registry()
        device.complete(table, stage, 8, argparse.Namespace(steps=steps, rounds=rounds))
        registry.add_plugin(device.Stopwatch(stage), "stopwatch")
        return table, registry

    return completed


@pytest.mark.parametrize("recipe", ["vit_recipe", "vq_recipe"])
def test_recipes_of_tokenizers_have_all_losses_from_the_first_step_on(completed, recipe):
    table, registry = completed(recipe, "train_tokenizer")
    (stage,) = Recipe.from_table(table).resolve(registry).stages
    losses = {name: spec.config for name, spec in stage.spec.config.losses.items()}
    assert {"reconstruction", "perceptual", "adversarial"} <= losses.keys()
    assert losses["adversarial"].start == 0.0


@pytest.mark.parametrize("recipe", ["vit_recipe", "vq_recipe", "flow_recipe"])
def test_no_checkpoint_is_written_while_a_training_is_timed(completed, recipe):
    use = "train_generator" if recipe == "flow_recipe" else "train_tokenizer"
    table, registry = completed(recipe, use, steps=5, rounds=3)
    config = Recipe.from_table(table).resolve(registry).stages[-1].spec.config
    assert config.steps(4) == config.checkpoint_every == 20
    assert config.log_every == 5


def test_a_flow_is_trained_as_in_the_papers_recipe(device, completed):
    """Its header says 360 EFLOP for 4,003,200 steps of 256 images."""
    flops = device.flops_of(*completed("flow_recipe", "train_generator"), "train_generator")
    assert flops == pytest.approx(360e18 / (4_003_200 * 256), rel=0.01)


def test_a_name_of_nothing_is_refused(device, capsys):
    with pytest.raises(SystemExit):
        device.main(["--quick", "--only", "RAR-B"])
    assert "--only: there is no RAR-B; known: RAR-B sampling, LlamaGen-B sampling" in capsys.readouterr().err
