"""Kills a run again and again, at random moments and around its writes, and compares what it leaves with a calm run.

python tests/soak/kills.py --kills 1000

Each round runs a small recipe of one kind (discrete or continuous) to its end. A child process runs it and is killed;
the next child continues. In half of the rounds the child dies at a random moment, in the others just before or just
after one of its renamings, flushes or directory changes. At the end the folder must hold, bit for bit, the weights,
latents, samples and results of a run that nobody disturbed, and the same lines in metrics.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from project import CONTINUOUS, FLOW, POST_TRAINING, TO_SAMPLES, Project

#: What a process calls to make a write visible; it may die before and after each.
WRITES = ("replace", "rename", "fsync", "mkdir", "unlink", "link")
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


def round_of(kind: str, out: Path, rng: random.Random, *, aimed: bool, seconds: float) -> int:
    """Runs a recipe to its end under fire; returns how often it was killed.

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
            while time.monotonic() < end and os.waitpid(pid, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return killed
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(f"{kind}: the run failed after {killed} kills: {out}")
            return killed
    raise AssertionError("unreachable")


def main() -> None:
    """Rounds until enough kills; exits with 1 at the first difference, and keeps its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "robustok-soak")
    options = parser.parse_args()
    rng, killed, rounds = random.Random(options.seed), 0, 0
    shutil.rmtree(options.out, ignore_errors=True)
    calm: dict[str, tuple[dict[str, Any], float]] = {}
    for kind in KINDS:
        began = time.monotonic()
        pid = child(project(kind, options.out / f"calm-{kind}").run, lambda: None)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"{kind}: the calm run failed")
        calm[kind] = content(options.out / f"calm-{kind}" / "tiny"), time.monotonic() - began
    while killed < options.kills:
        kind, aimed = list(KINDS)[rounds % len(KINDS)], rounds // len(KINDS) % 2 == 0
        out = options.out / f"round-{rounds}"
        expected, seconds = calm[kind]
        killed += round_of(kind, out, rng, aimed=aimed, seconds=seconds)
        left = content(out / "tiny")
        different = sorted(key for key in expected.keys() | left.keys() if expected.get(key) != left.get(key))
        if different:
            raise SystemExit(f"{kind}: {different[:5]} differ from a calm run: {out}")
        shutil.rmtree(out)
        rounds += 1
        print(f"{killed} kills, {rounds} rounds, nothing differs", flush=True)


if __name__ == "__main__":
    main()
