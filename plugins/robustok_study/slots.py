"""Where the jobs of a study run: each on some cores of the CPU, or on an accelerator of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import frozen

from robustok_core.errors import RobustokError

#: What numeric libraries read to know how many threads they may start.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@frozen
class Slot:
    """A place for one job at a time: what its processes find in the environment, and its name."""

    name: str
    environment: Mapping[str, str]


def make_slots(count: int | None, threads: int | None, num_jobs: int) -> list[Slot]:
    """The places for jobs.

    Args:
        count: jobs at once; default: one on each CUDA device, or else on each core that this process may use.
        threads: of each job; default: the cores, divided among the places.
        num_jobs: of the study, whether done or not, so that the threads are the same when it is resumed.

    Raises:
        RobustokError: if a launcher started this process.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        hint = "a study starts one process for each job: run it without `accelerate launch`"
        raise RobustokError("a study cannot be started on several processes", hint=hint)
    devices, cores = _devices(), _cores()
    places = min(count or len(devices) or cores, num_jobs)
    each = str(threads or max(1, cores // places))
    called = "1 thread" if each == "1" else f"{each} threads"
    slots = []
    for number in range(places):
        environment = dict.fromkeys(_THREADS, each)
        if devices:
            environment[_VISIBLE] = devices[number % len(devices)]
        slots.append(Slot(f"device {environment[_VISIBLE]}" if devices else called, environment))
    return slots


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available():
        return []
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]
