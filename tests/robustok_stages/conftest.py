"""What the tests of the stages share: a run on two processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from robustok_core.files import read_json


@pytest.fixture
def run_on_two(tmp_path: Path) -> Callable[..., Path]:
    """Runs a recipe's table on two CPU processes of `accelerate launch`; returns the run's folder."""

    def run_on_two(table: dict[str, Any], out: Path) -> Path:
        recipe = tmp_path / "on_two.toml"
        recipe.write_text(tomli_w.dumps(table))
        with socket.socket() as free:  # older launchers wait for ever on port 0
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
        command = [sys.executable, *launch, "-m", "robustok_core", "run", str(recipe), "--out", str(out)]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=surroundings, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        folder = out / table["run"]["name"]
        assert read_json(folder / "run.json")["processes"] == 2
        return folder

    return run_on_two


@pytest.fixture
def dying() -> Callable[[Callable[[], Any], int], None]:
    """Calls `action` in another process, which is killed half-way through writing its `part`-th file of a part."""

    def dying(action: Callable[[], Any], part: int) -> None:
        import robustok_stages.parts

        real, written = robustok_stages.parts.write_array, []

        def write_array(file: Path, array: Any) -> None:
            written.append(file)
            if len(written) == part:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.with_name(f".writing-{file.name}").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            real(file, array)

        def act() -> None:
            robustok_stages.parts.write_array = write_array
            action()

        process = multiprocessing.get_context("fork").Process(target=act)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    return dying
