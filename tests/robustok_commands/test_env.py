"""`robustok env`: what a bug report needs, and nothing that says whose machine it is."""

from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

import torch
from accelerate import Accelerator

import robustok
from robustok_commands.env import env
from robustok_core.runs.provenance import surroundings
from robustok_core.values.devices import device_name


def printed(capsys, *arguments: str) -> str:
    env.main(list(arguments), standalone_mode=False)
    return capsys.readouterr().out


def test_it_names_versions_machine_and_precision(capsys):
    found = json.loads(printed(capsys, "--json"))
    assert found["robustok"].startswith(robustok.__version__)
    assert found["libraries"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert {"wandb", "numpy", "click"} <= found["libraries"].keys()
    assert not {"pytest", "sphinx", "ruff"} & found["libraries"].keys()
    assert found["precision auto"]
    text = printed(capsys)
    assert all(name in text for name in found)


def test_a_run_records_the_processor_and_its_instructions_as_env_says_them(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that the run was told not to use
    found = json.loads(printed(capsys, "--json"))
    made = surroundings(Accelerator(cpu=True))
    assert made["device"] == f"{found['processor']} ({found['instructions']})"
    assert made["processes"] == 1
    assert device_name(torch.device("mps")) == f"mps of {found['processor']}"


def test_it_says_nothing_of_who_or_where(capsys, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    text = printed(capsys)
    assert "CUBLAS_WORKSPACE_CONFIG :4096:8" in text
    for private in (platform.node(), str(Path.home()), str(Path.cwd()), f"/{getpass.getuser()}/"):
        assert private not in text
