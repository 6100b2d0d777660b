"""Measures how OpenMP's wait policy affects the speed of a small training, on an idle and on a busy machine.

    python benchmarks/waiting_threads.py
    python benchmarks/waiting_threads.py --rounds 5 --seconds 6 GOMP_SPINCOUNT=1000 OMP_WAIT_POLICY=PASSIVE

Each setting runs in a separate process, because OpenMP reads it only once. In every round, all settings run in turn:
alone, then beside an endless single-threaded loop, then as two processes at once, each using all cores. So each is
compared with the default ("plain") within minutes. Prints JSON: for each setting and load, the median number of images
per second in training steps of main_train's tokenizer and generator, and the ratio to the default (for two processes,
of their sums).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from robustok_core import Draws, Latents, Recipe, load_registry

WAYS = ["GOMP_SPINCOUNT=1000", "GOMP_SPINCOUNT=10000", "OMP_WAIT_POLICY=PASSIVE"]
LOADS = ("alone", "beside_a_loop", "two_at_once")
BATCH = 64
LOOP = [sys.executable, "-c", "while True: pass"]


def steps() -> dict[str, Callable[[], None]]:
    """A forward and backward pass of each model of main_train."""
    registry = load_registry()
    tables = Recipe.load("main_train").resolve(registry).tables
    tokenizer = tables["tokenizer"].build()
    generator = tables["generator"].build(tokenizer.space, 10)
    images = torch.randn(BATCH, 3, 32, 32)
    codes = torch.randint(0, tokenizer.space.codebook_size, (BATCH, tokenizer.space.num_tokens))
    draws = Draws(seed=0, indices=torch.arange(BATCH), total=BATCH)

    def train_tokenizer() -> None:
        (tokenizer.decode(tokenizer.encode(images)) - images).square().mean().backward()

    def train_generator() -> None:
        losses = generator.loss(Latents(codes=codes), torch.arange(BATCH) % 10, draws=draws, progress=0.0)
        sum(losses.values()).backward()  # type: ignore[union-attr]

    return {"tokenizer": train_tokenizer, "generator": train_generator}


def measure(seconds: float) -> dict[str, float]:
    """Images per second of each step, in this process."""
    rates = {}
    for name, step in steps().items():
        step()
        count, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            step()
            count += 1
        rates[name] = count * BATCH / passed
    return rates


def started(way: str, seconds: float) -> subprocess.Popen[str]:
    """Starts a process that measures one setting."""
    environment = {name: value for name, value in os.environ.items() if name not in {w.split("=")[0] for w in WAYS}}
    environment |= [way.split("=")] if "=" in way else []
    command = [sys.executable, __file__, "--measure", "--seconds", str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def images_per_second(way: str, load: str, seconds: float) -> dict[str, float]:
    """The rates with one setting under a load; for two processes, their sum."""
    other = subprocess.Popen(LOOP) if load == "beside_a_loop" else None
    try:
        processes = [started(way, seconds) for _ in range(2 if load == "two_at_once" else 1)]
        rates = [json.loads(process.communicate()[0]) for process in processes]
    finally:
        if other is not None:
            other.kill()
    return {name: sum(rate[name] for rate in rates) for name in rates[0]}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "ways", nargs="*", default=WAYS, metavar="NAME=VALUE", help="settings to measure, one at a time"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="per model")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.seconds)))
        return
    ways = ["plain", *options.ways]
    rates: dict[str, dict[str, list[dict[str, float]]]] = {load: {way: [] for way in ways} for load in LOADS}
    for _ in range(options.rounds):
        for load in LOADS:
            for way in ways:
                rates[load][way].append(images_per_second(way, load, options.seconds))
    report: dict[str, object] = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    report |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": options.rounds}
    for load, by_way in rates.items():
        report[load] = {
            way: {
                name: {
                    "images_per_second": round(statistics.median(run[name] for run in runs), 1),
                    "ratio": round(
                        statistics.median(
                            run[name] / plain[name] for run, plain in zip(runs, by_way["plain"], strict=True)
                        ),
                        3,
                    ),
                }
                for name in runs[0]
            }
            for way, runs in by_way.items()
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
