"""What recipes/cluster holds: each launcher's file launches a run, and the batch script resumes one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import is_torch_version
from accelerate.utils.launch import prepare_multi_gpu_env
from accelerate.utils.versions import compare_versions

from processes import free_port, two_forked
from project import Project
from robustok_core.cli import main
from robustok_core.runs.files import read_json

FOLDER = Path(__file__).parent.parent / "recipes" / "cluster"
OLD = is_torch_version("<", "2.7.0") or compare_versions("accelerate", "<", "1.6.0")
WITHOUT_FSDP = pytest.mark.skipif(OLD, reason="FSDP needs torch 2.7 and accelerate 1.6")
FILES = [
    pytest.param(file, marks=WITHOUT_FSDP if "fsdp" in file.stem else (), id=file.stem)
    for file in sorted(FOLDER.glob("*.yaml"))
]
LONG = {"epochs": 5, "checkpoint_every": 1000}
#: Stands for SLURM's commands: `srun` starts two tasks and passes SIGTERM on, `scontrol` writes down what it is asked.
SRUN = """#!{python}
import os, signal, subprocess, sys
assert sys.argv[1:3] == ["--cpus-per-task=6", "--kill-on-bad-exit=1"], sys.argv
command = sys.argv[3:]
tasks = [
    subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": n, "SLURM_LOCALID": n, "SLURM_NTASKS": "2"}})
    for n in ("0", "1")
]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$ASKED"; fi
"""


def recipe_of(project: Project) -> Path:
    file = project.out.with_name(f"{project.out.name}.toml")
    file.write_text(tomli_w.dumps(project.table))
    return file


def assert_two_trained(project: Project) -> None:
    (entry,) = read_json(project.folder / "run.json")["stages"].values()
    assert (entry["state"], entry["made_with"][0]["processes"]) == ("done", 2)


@pytest.mark.parametrize("file", FILES)
def test_what_a_launchers_file_sets_lets_two_processes_train(file, tmp_path):
    config = load_config_from_file(str(file))
    assert config.num_processes == config.num_machines * 8
    assert config.mixed_precision == "no"  # a recipe says it
    assert f"--config_file recipes/cluster/{file.name}" in file.read_text()
    project = Project(tmp_path / "runs", train_tokenizer={"epochs": 0.4})
    asked = ["--config_file", str(file), "--num_processes", "2", "--num_machines", "1", "-m", "robustok_core"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(asked))
    surroundings = {
        name: value for name, value in prepare_multi_gpu_env(arguments).items() if os.environ.get(name) != value
    }
    surroundings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = ["run", str(recipe_of(project)), "--out", str(project.out)]
    ended = two_forked(lambda: main(command), tmp_path / "said", **surroundings)
    assert [code for code, _ in ended] == [0, 0], ended
    assert_two_trained(project)


@WITHOUT_FSDP
def test_accelerate_launches_a_run_whose_weights_are_divided(tmp_path):
    project = Project(tmp_path / "runs", train_tokenizer={"epochs": 1, "checkpoint_every": 1})
    launch = ["-m", "accelerate.commands.launch", "--config_file", FOLDER / "fsdp_8.yaml", "--num_processes", "2"]
    command = [*launch, "--main_process_port", free_port(), "-m", "robustok_core", "run", recipe_of(project)]
    surroundings = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, "--out", project.out],
        check=False,
        capture_output=True,
        text=True,
        env=surroundings,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    assert "2 processes, on cpu: trained weights are divided among them (FSDP)" in done.stdout
    assert_two_trained(project)
    assert list(project.folder.rglob("shard-00001-of-00002.safetensors"))


def test_the_batch_script_stops_with_a_checkpoint_is_queued_again_and_goes_on(tmp_path):
    project = Project(tmp_path / "runs", train_tokenizer=LONG)
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    surroundings = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ASKED": str(tmp_path / "asked"),
        "RUNS": str(project.out),
        "MASTER_PORT": free_port(),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_CPUS_PER_TASK": "6",  # of --cpus-per-task
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = ["sh", str(FOLDER / "slurm.sh"), str(recipe_of(project)), "--set", "run.seed=5"]
    first = subprocess.Popen(command, env=surroundings, stderr=subprocess.PIPE, text=True)
    log, until = project.folder / "metrics.jsonl", time.monotonic() + 200
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=200)
    assert first.returncode == 130, errors
    assert errors.count("a checkpoint is saved") == 1, errors
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    again = subprocess.run(command, check=False, env=surroundings, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert ": step " in again.stdout  # it did not begin again
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert_two_trained(project)
