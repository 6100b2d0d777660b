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
    """The commit of the checkout that contains this code, with "+" if it has changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        completed = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"],
            check=False,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() or None


def peak_memory() -> float:
    """The largest resident memory of this process so far, in GiB."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
