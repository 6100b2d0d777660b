"""The versions, machine and command that produced a result, needed to reproduce it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from datetime import datetime, timezone
from typing import Any

import torch
from accelerate import Accelerator

from robustok_core import __version__
from robustok_core.runs.environment import recorded_variables
from robustok_core.runs.source_commit import git_commit
from robustok_core.values.command_line import running_command
from robustok_core.values.devices import device_name


def surroundings(accelerator: Accelerator) -> dict[str, Any]:
    """The versions, machine and command of a run, and how many processes it has.

    The command is None in a program that is not `robustok`.
    """
    return {
        "robustok": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "git_commit": git_commit(),
        "environment": recorded_variables(),
        "command": running_command(),
    }


def peak_memory() -> float:
    """The largest resident memory of this process so far, in GiB."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
