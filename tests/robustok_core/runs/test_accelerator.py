"""What a run needs of this machine: trackers and precision."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from commands import robustok
from processes import free_port, one_and_two
from project import line_of
from robustok_core import RunError
from robustok_core.runs.accelerator import own_device


def test_processes_wait_for_a_long_download(monkeypatch):
    """By default, gloo waits for half an hour, and NCCL ends the run after ten minutes."""
    began = []

    def connect(**options):
        began.append(options)
        raise RuntimeError("there is no other process")

    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setattr(torch.distributed, "init_process_group", connect)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(RunError, match="there is no other process"):
        own_device()
    assert began[0]["timeout"] >= timedelta(hours=2)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the names of threads")
def test_no_thread_of_a_process_talks_to_the_others_once_they_have_parted(monkeypatch, tmp_path):
    """One that frees a tensor while Python ends aborts the process, after all its work is done."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", free_port())
    one_and_two(Path(__file__).with_name("parted_processes.py"), tmp_path)
    assert ["gloo" in (tmp_path / rank).read_text() for rank in "01"] == [False, False]


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


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_trackers_get_curves_and_pictures_in_the_run_folder_without_a_network(tracker, recipe_file, tmp_path):
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"needs {tracker}")
    file = recipe_file({"run.trackers": [tracker]})
    with file.open("a") as opened:
        opened.write('[[stage]]\nuse = "evaluate_tokenizer"\nlimit = 20\nmetrics = { psnr = { use = "psnr" } }\n')
    # trackio chooses its folder when it is imported, once in a process
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "home")}
    done = robustok("run", file, "--out", tmp_path / "out", env=offline)
    assert (done.returncode, "a tracker failed" in done.stdout) == (0, False), done.stdout + done.stderr
    folder = tmp_path / "out" / "tiny"
    if tracker == "trackio":
        assert len(list((folder / "trackio").rglob("*.png"))) == 1
        (database,) = (folder / "trackio").glob("robustok*.db")
        with contextlib.closing(sqlite3.connect(database)) as opened:
            logged = str(opened.execute("SELECT metrics FROM metrics").fetchall())
        assert "train_tokenizer/loss" in logged
        assert "evaluate_tokenizer/reconstructions" in logged
        assert not list((tmp_path / "home").rglob("*trackio*"))
    else:
        (events, *_) = folder.rglob("events.out.tfevents*")
        assert b"evaluate_tokenizer/reconstructions" in events.read_bytes()
