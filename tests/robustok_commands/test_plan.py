"""`robustok plan` as a user meets it: for any machine, without data, weights or a GPU."""

from __future__ import annotations

import json

import pytest
from attrs import frozen
from click.testing import CliRunner

from project import registry_with
from robustok_commands.plan import byte_text, plan, scaled
from robustok_core import Recipe, RobustokError, Stage
from robustok_core.kinds.cost import Cost, Work
from robustok_core.runs.assumed import Launch
from robustok_core.runs.costing import plan_costs
from robustok_toolkit.device_table import DEVICES, Device


def run(*arguments: str) -> str:
    result = CliRunner().invoke(plan, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def recipe(recipe_file):
    return recipe_file(stages=["train_tokenizer", "evaluate_tokenizer", "tokenize", "train_generator", "sample"])


def test_every_stage_says_what_it_computes_and_holds(recipe):
    told = json.loads(run(recipe, "--json", "--gpus", "4", "--device", "a100", "--utilisation", "0.5"))
    costs = {stage["name"]: stage["cost"] for stage in told["stages"]}
    assert list(costs) == ["train_tokenizer", "evaluate_tokenizer", "tokenize", "train_generator", "sample"]
    training = costs["train_tokenizer"]
    (work,) = training["work"]
    assert work["gpu_hours"] == pytest.approx(work["flop"] / (19.5e12 * 0.5) / 3600)  # float32 on an A100
    assert (training["steps"], work["images"]) == (5, 80)
    assert training["memory"]["images"] == 16 // 4
    assert training["memory"]["most_images"] > training["memory"]["images"]
    assert [work["name"] for work in costs["sample"]["work"]] == ["sampling", "decoding"]
    # 16 codes of 2 bytes for two views of 80 training images and 40 validation images
    assert costs["tokenize"]["disk_bytes"] == {"latents": (2 * 80 + 40) * 16 * 2}
    assert costs["sample"]["disk_bytes"]["samples"] == 24 * (3 * 32 * 32 + 16 * 2)
    assert all(work["flop"] > 0 for cost in costs.values() for work in cost["work"])


def test_the_table_names_the_assumptions_of_its_times(recipe):
    output = run(recipe, "--gpus", "8", "--utilisation", "0.4")
    assert "at 40% of h100's peak (989.5 TFLOP/s in bf16, 67 in float32 without TF32)" in output
    assert "hours on 8" in output
    assert "does not fit" not in output
    assert output == run(recipe, "--gpus", "8", "--utilisation", "0.4", "--device", "h100")


def test_what_does_not_fit_is_said_with_the_options_that_make_it_fit(recipe, monkeypatch):
    stages = json.loads(run(recipe, "--json"))["stages"]
    memory = next(stage["cost"]["memory"] for stage in stages if stage["name"] == "train_tokenizer")
    assert memory["images"] == 16
    usable = sum(memory["fixed_bytes"].values()) + 4.5 * memory["bytes_per_image"]
    monkeypatch.setitem(DEVICES, "small", Device(1e12, 1e12, usable / 0.9 / 2**30))
    output = run(recipe, "--device", "Small")
    assert "does not fit: train_tokenizer, 16 images at once in" in output
    assert "4 fit: set accumulation = 4 (the same step)" in output
    assert "does not fit: train_tokenizer" not in run(
        recipe, "--device", "small", "--set", "stage.train_tokenizer.accumulation=4"
    )


def test_weights_that_gpus_share_take_less_of_each(recipe):
    def fixed(*arguments):
        told = json.loads(run(recipe, "--json", "--gpus", "4", *arguments))
        return {
            stage["name"]: stage["cost"]["memory"]["fixed_bytes"] for stage in told["stages"] if stage["cost"]["memory"]
        }

    whole, shared = fixed(), fixed("--fsdp")
    for name in ("train_tokenizer", "train_generator"):
        assert shared[name]["optimiser"] < whole[name]["optimiser"]
        assert "gathered blocks" in shared[name]
        assert "gathered blocks" not in whole[name]
        assert "gradients in DDP's buckets" not in shared[name]


def test_gathered_blocks_that_are_kept_take_more_than_those_that_are_freed(recipe_file, monkeypatch):
    def gathered(frees, **generator):
        monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", frees)
        file = recipe_file(stages=["train_tokenizer", "tokenize", "train_generator"], generator=generator)
        told = json.loads(run(file, "--json", "--gpus", "4", "--fsdp"))
        return told["stages"][-1]["cost"]["memory"]["fixed_bytes"]["gathered blocks"]

    deep, shallow = {"depth": 8}, {"depth": 1}
    assert gathered("1", **deep) == gathered("yes", **deep) < gathered("false", **deep)
    assert gathered("1", **shallow) <= gathered("false", **shallow)


def test_one_gpu_shares_nothing(recipe):
    result = CliRunner().invoke(plan, [str(recipe), "--fsdp"])
    assert result.exit_code == 2
    assert "give --gpus" in result.output


def test_an_unknown_device_is_refused_with_those_that_are_known(recipe):
    with pytest.raises(RobustokError) as refused:
        CliRunner().invoke(plan, [str(recipe), "--device", "h1000"], catch_exceptions=False)
    assert refused.value.hint == "did you mean 'h100'?"
    with pytest.raises(RobustokError) as refused:
        CliRunner().invoke(plan, [str(recipe), "--device", "cpu"], catch_exceptions=False)
    assert "known: a100, " in (refused.value.hint or "")


def test_a_batch_that_the_processes_cannot_share_is_refused_as_a_run_would(recipe):
    with pytest.raises(RobustokError, match="does not divide into 3 equal parts"):
        CliRunner().invoke(plan, [str(recipe), "--gpus", "3"], catch_exceptions=False)


def test_a_recipe_for_imagenet_is_planned_without_its_data_or_files():
    told = json.loads(run("imagenet256/rar_b", "--gpus", "8", "--json"))
    generator = next(stage["cost"] for stage in told["stages"] if stage["name"] == "train_generator")
    assert round(generator["parameters"]["trained"] / 1e6, 1) == 265.6
    assert generator["steps"] == 250_000
    # Six operations for each of 260 M weights and 256 tokens, and those of attention.
    assert generator["work"][0]["flop_per_image"] == pytest.approx(6 * 260e6 * 256, rel=0.1)
    assert any("1,281,167 training" in line for line in told["assumed"])
    assert any("runs/robustok_tokenizer is not here" in line for line in told["assumed"])


def test_another_number_of_images_is_planned_with(recipe_file):
    for change in ("data.expect.train=204800", "data.train_limit=204800"):
        told = json.loads(run("imagenet256/rar_b", "--set", change, "--json"))
        assert next(stage["cost"]["steps"] for stage in told["stages"] if stage["name"] == "train_generator") == 40_000


def test_data_of_which_nothing_is_known_are_refused_with_what_to_say(recipe_file):
    file = recipe_file(data={"use": "image_folder", "path": "nowhere", "image_size": 32})
    with pytest.raises(RobustokError) as refused:
        CliRunner().invoke(plan, [str(file)], catch_exceptions=False)
    assert "data.expect={" in (refused.value.hint or "")


@frozen(kw_only=True)
class Nothing:
    """No options."""


class Silent(Stage):
    """Does not say what it takes."""

    Config = Nothing

    def __init__(self, config):
        pass

    def run(self, context):
        return {}


class Outspoken(Silent):
    """Says what it takes."""

    def cost(self, context):
        return Cost(work=[Work(name="thinking", images=10, flops=1e12)], notes=[f"for {context.processes} processes"])


def test_a_stage_of_a_plugin_takes_part_and_one_that_says_nothing_is_not_known():
    registry = registry_with(stage={"silent": Silent, "outspoken": Outspoken})
    recipe = Recipe.from_table({"run": {"name": "r"}, "stage": [{"use": "silent"}, {"use": "outspoken"}]})
    silent, outspoken = plan_costs(recipe, registry=registry, launch=Launch(processes=2))
    assert silent.cost is None
    assert outspoken.cost.work[0].total == 1e13
    assert outspoken.cost.notes == ["for 2 processes"]


def test_numbers_have_three_digits_and_a_prefix():
    assert [scaled(value) for value in (0, 12, 999.6, 172_288_064, 2.129e20)] == ["0", "12", "1 k", "172 M", "213 E"]
    assert [byte_text(size) for size in (0, 1013 * 2**20, 2**40)] == ["0 B", "0.989 GiB", "1 TiB"]
