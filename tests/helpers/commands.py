"""Runs `robustok` in processes of its own, with a plugin that acts in the middle of a stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomli_w

from project import Project

#: Acts when a stage reports its progress for the n-th time: it sends a signal, as a scheduler or a terminal does.
_ACTOR = """
import os, subprocess
from robustok_training.progress import StepProgress

stage, count, number, whom = os.environ["ACT_AT"].split(",")
real, seen = StepProgress.update, [0]

def update(self, done, values=None):
    real(self, done, values)
    seen[0] += self._title.startswith(stage)
    if seen[0] == int(count):
        seen[0] = -10**9
        if os.environ["ACT_ON"] in ("", os.environ.get("RANK", "")):
            act()

def act():
    targets = {
        "group": lambda: -os.getpgrp(),
        "launcher": os.getppid,
        "self": os.getpid,
    }
    # From another process: a loader ends when this one asks it to.
    subprocess.Popen(["sh", "-c", f"kill -{number} {targets[whom]()}"]).wait()

StepProgress.update = update
"""


def install(folder: Path, name: str, code: str, group: str = "robustok", value: str | None = None) -> dict[str, str]:
    """Installs a module as the plugin of a package; returns the environment in which Python finds it."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {value or name}\n")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def robustok(*arguments: Any, env: dict[str, str] | None = None, launch: tuple[str, ...] = ()) -> Any:
    """Runs a command in a session of its own, through a launcher or not; gives its exit code and what it printed."""
    command = [sys.executable, *launch, "-m", "robustok_core", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=env, timeout=300, start_new_session=True
    )


def run_and_act(
    project: Project, stage: str, count: int, number: int, whom: str, *, rank: int | None = None, **options: Any
) -> Any:
    """Runs a project in another process, and sends a signal when a stage has made progress for the `count`-th time.

    Args:
        whom: it is sent to: the "group" of processes, the "launcher" of this process, or itself.
        rank: which of several processes sends it; all by default.
    """
    project.out.mkdir(parents=True, exist_ok=True)
    file = project.out / "r.toml"
    file.write_text(tomli_w.dumps(project.table))
    env = install(project.out / "plugin", "actor", _ACTOR)
    env["ACT_AT"] = f"{stage},{count},{int(number)},{whom}"
    env["ACT_ON"] = "" if rank is None else str(rank)
    return robustok("run", file, "--out", project.out, env=env, **options)
