"""What a run needs of this machine: trackers and precision."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from project import line_of


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 fits a CUDA device")
def test_fp16_on_a_cpu_is_refused_with_its_line(refused, recipe_file):
    file = recipe_file({"run.precision": "fp16"})
    output = refused("run", file, "--out", "out")
    assert line_of(file, "precision") + 'run.precision: "fp16" needs a CUDA device' in output


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_the_error_of_a_missing_tracker_says_what_to_install(refused, recipe_file):
    output = refused("run", recipe_file({"run.trackers": ["wandb"]}), "--out", "out")
    assert "run.trackers: wandb is not installed\n  hint: pip install 'robustok[wandb]'" in output
    assert not Path("out").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_a_tracker_writes_into_the_run_folder_of_a_new_run(command, recipe_file):
    file = recipe_file({"run.trackers": ["tensorboard"]})
    assert command("check", file)[0] == 0
    assert not Path("runs").exists()
    code, _, output = command("run", file, "--out", "out")
    assert code == 0, output
    assert list(Path("out/tiny").rglob("events.out.tfevents*"))
