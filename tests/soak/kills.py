"""Kills a run again and again, at random moments and around its writes, and compares what it leaves with a calm run.

Each round runs a small recipe of one kind (discrete or continuous) to its end. A child process runs it and is killed;
the next child continues. In half of the rounds the child dies at a random moment, in the others just before or just
after one of its renamings, flushes or directory changes. At the end the folder must hold, bit for bit, the weights,
latents, samples and results of a run that nobody disturbed, and the same lines in metrics.jsonl. `soak.py` calls it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from project import CONTINUOUS, FLOW, POST_TRAINING, TO_SAMPLES, Project

#: What a process calls to make a write visible; it may die before and after each.
WRITES = ("replace", "rename", "fsync", "mkdir", "unlink", "link")
#: By whether the moment is one of these writes.
FAULTS = ("SIGKILL at a random moment", "SIGKILL just before or after a write")
KINDS: dict[str, dict[str, Any]] = {
    "discrete": {},
    "continuous": {**CONTINUOUS, "generator": FLOW, "post_trainer": {"use": "decoder"}},
}
CHECKPOINTS = {
    "train_tokenizer": {"checkpoint_every": 2},
    "train_generator": {"checkpoint_every": 3},
    "post_train": {"checkpoint_every": 2},
}


def project(kind: str, out: Path) -> Project:
    """The recipe of a round: every stage that writes something."""
    made = Project(out, (*TO_SAMPLES, *POST_TRAINING))
    for stage in made.table["stage"]:
        stage.update(CHECKPOINTS.get(stage["use"], {}))
        if kind == "continuous":
            stage.pop("sampling", None)
    for name, change in KINDS[kind].items():
        made.table[name] = change
    made.table = {name: table for name, table in made.table.items() if table is not None}
    return made


def content(folder: Path) -> dict[str, Any]:
    """What a run must leave: arrays of its artifacts, its results, and its log without times."""
    left: dict[str, Any] = {}
    for file in sorted((folder / "artifacts").rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".safetensors":
            left |= {f"{name}:{key}": value.tobytes() for key, value in load_file(file).items()}
        elif file.suffix == ".npz":
            with np.load(file) as arrays:
                left |= {f"{name}:{key}": arrays[key].tobytes() for key in arrays.files}
        elif file.suffix in (".npy", ".png"):
            left[name] = file.read_bytes()
    left["results"] = json.loads((folder / "results.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    left["log"] = [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]
    return left


def child(work: Callable[[], Any], dies: Callable[[], None]) -> int:
    """Runs `work` in a child process, with `dies` called first; returns its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            dies()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def at_a_write(number: int, *, after: bool) -> Callable[[], None]:
    """Makes this process kill itself before or after its write of this number."""

    def prepare() -> None:
        counter = itertools.count(1)

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                this = next(counter) == number
                if this and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    return real(*arguments, **options)
                finally:
                    if this:
                        os.kill(os.getpid(), signal.SIGKILL)

            return call

        for name in WRITES:
            setattr(os, name, dying(getattr(os, name)))

    return prepare


def round_of(kind: str, out: Path, rng: random.Random, *, aimed: bool, seconds: float) -> tuple[int, bool]:
    """Runs a recipe to its end under fire; returns how often it was killed, and whether it failed then.

    Args:
        seconds: how long a calm run takes.
    """
    made = project(kind, out)
    for killed in itertools.count():
        # later and later, so that the round ends
        reach = 1.0 + killed / 20
        write = 1 + int(rng.expovariate(1 / (20 * reach)))
        pid = child(made.run, at_a_write(write, after=rng.random() < 0.5) if aimed else lambda: None)
        if not aimed:
            end = time.monotonic() + rng.random() * reach * seconds / 4
            while time.monotonic() < end and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                time.sleep(0.005)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            return killed, os.WEXITSTATUS(status) != 0
    raise AssertionError("unreachable")


def kill_runs(kills: int, seed: int, out: Path) -> list[tuple[str, int, int]]:
    """Kills runs; returns each fault with its number of kills and of rounds that lost something.

    Args:
        kills: at least so many; a round is always finished.
        seed: of all random choices, except when a kill hits.
        out: a folder to replace; the folders of rounds that lost something stay in it.
    """
    rng, rounds = random.Random(seed), 0
    killed, lost = dict.fromkeys(FAULTS, 0), dict.fromkeys(FAULTS, 0)
    shutil.rmtree(out, ignore_errors=True)
    calm: dict[str, tuple[dict[str, Any], float]] = {}
    for kind in KINDS:
        began = time.monotonic()
        pid = child(project(kind, out / f"calm-{kind}").run, lambda: None)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"{kind}: the calm run failed")
        calm[kind] = content(out / f"calm-{kind}" / "tiny"), time.monotonic() - began
    while sum(killed.values()) < kills:
        kind, aimed = list(KINDS)[rounds % len(KINDS)], rounds // len(KINDS) % 2 == 0
        folder, (expected, seconds) = out / f"round-{rounds}", calm[kind]
        died, failed = round_of(kind, folder, rng, aimed=aimed, seconds=seconds)
        killed[FAULTS[aimed]] += died
        left = {} if failed else content(folder / "tiny")
        if different := sorted(key for key in expected.keys() | left.keys() if expected.get(key) != left.get(key)):
            lost[FAULTS[aimed]] += 1
            what = "the run failed" if failed else f"{different[:5]} differ from a calm run"
            print(f"{kind}: {what} after {died} kills: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
        rounds += 1
        print(f"{sum(killed.values())} kills, {rounds} rounds, {sum(lost.values())} of them lost something", flush=True)
    return [(fault, killed[fault], lost[fault]) for fault in FAULTS]
