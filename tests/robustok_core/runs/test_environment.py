"""What the environment may not change: each variable that would is refused by name."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "16"),
        ("ACCELERATE_DYNAMO_BACKEND", "inductor"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "yes"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("ACCELERATE_MIXED_PRECISION", "fp8"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
    ],
)
def test_a_variable_that_would_change_a_run_is_named_and_refused(
    refused, recipe_file, monkeypatch, tmp_path, name, value
):
    monkeypatch.setenv(name, value)
    assert name in refused("run", recipe_file(), "--out", "out")
    assert not list(tmp_path.glob("out/*/artifacts/*"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FSDP_VERSION", "1"),
        ("FSDP_OFFLOAD_PARAMS", "true"),
        ("FSDP_RESHARD_AFTER_FORWARD", "FULL_SHARD"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true"),
        ("FSDP_AUTO_WRAP_POLICY", "SIZE_BASED_WRAP"),
        ("FSDP_STATE_DICT_TYPE", "FULL_STATE_DICT"),
        ("FSDP_IGNORED_MODULES", ".*head"),
    ],
)
def test_what_fsdp_would_do_otherwise_is_named_and_refused(refused, recipe_file, monkeypatch, name, value):
    for variable, set_to in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", name: value}.items():
        monkeypatch.setenv(variable, set_to)
    assert f"{name}={value} is not supported" in refused("run", recipe_file(), "--out", "out")


def test_fsdp_is_version_1_unless_version_2_is_set(refused, recipe_file, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "FSDP_VERSION=1 is not supported" in refused("run", recipe_file(), "--out", "out")


def test_one_process_of_a_launcher_that_was_asked_for_several_is_refused(refused, recipe_file, monkeypatch):
    """As `accelerate launch --num_processes 8` starts on a machine without GPUs, without a word."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    output = refused("run", recipe_file(), "--out", "out")
    assert "was asked for several processes, and has started only this one" in output
    assert "--multi_gpu" in output


def test_what_a_launcher_sets_to_say_nothing_is_allowed(command, recipe_file, monkeypatch):
    for name, value in (
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO"),
        ("ACCELERATE_USE_FSDP", "false"),
        ("ACCELERATE_MIXED_PRECISION", "no"),
        ("ACCELERATE_USE_CPU", "true"),
    ):
        monkeypatch.setenv(name, value)
    code, _, errors = command("run", recipe_file(train_tokenizer={"epochs": 0.2}), "--out", "out")
    assert code == 0, errors
