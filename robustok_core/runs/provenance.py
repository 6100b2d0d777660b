"""The versions, machine and command that produced a result, needed to reproduce it."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from robustok_core import __version__
from robustok_core.runs.environment import recorded_variables


def surroundings() -> dict[str, Any]:
    """The versions, machine and command of this process."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else (platform.processor() or platform.machine())
    return {
        "robustok": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "git_commit": git_commit(),
        "environment": recorded_variables(),
        "command": sys.argv[1:],
    }


def git_commit() -> str | None:
    """The commit of the checkout of robustok that this code is in, with "+" if it has changes; None outside one.

    A repository that merely surrounds an installed robustok, such as a project with its environment inside, does not
    count: its commit says nothing about this code.
    """
    package = Path(__file__).resolve().parents[1]
    tracked = _git(package, "ls-files", "--error-unmatch", "--", str(Path(__file__).resolve()))
    top = _git(package, "rev-parse", "--show-toplevel")
    if tracked is None or top is None or Path(top).resolve() != package.parent:
        return None
    return _git(package, "describe", "--always", "--dirty=+", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if it fails or there is no git."""
    # inside a hook of git, GIT_DIR names the repository of the hook
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=5,
            env=surroundings,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return (completed.stdout.strip() or None) if completed.returncode == 0 else None


def peak_memory() -> float:
    """The largest resident memory of this process so far, in GiB."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
