"""Measures how OpenMP's wait policy affects the speed of a small training, on an idle and on a busy machine.

    python benchmarks/waiting_threads.py
    python benchmarks/waiting_threads.py --rounds 5 --seconds 6 GOMP_SPINCOUNT=1000 OMP_WAIT_POLICY=PASSIVE

Each setting runs in a separate process, because OpenMP reads it only once. In every round, all settings run in turn:
alone, then beside an endless single-threaded loop, then as two processes at once, each using all cores. So each is
compared with the default ("plain") of the same round: images per second in training steps of main_train's tokenizer
and generator, for two processes those of both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import harness
import torch
from torch import nn

from robustok_core import Draws, Latents, Recipe, load_registry

WAYS = ["GOMP_SPINCOUNT=1000", "GOMP_SPINCOUNT=10000", "OMP_WAIT_POLICY=PASSIVE"]
LOADS = ("alone", "beside_a_loop", "two_at_once")
LOOP = [sys.executable, "-c", "while True: pass"]


def steps(batch: int) -> dict[str, tuple[nn.Module, Callable[[], None]]]:
    """Each model of main_train, and a forward and backward pass of it with so many images."""
    registry = load_registry()
    tables = Recipe.load("main_train").resolve(registry).tables
    tokenizer = tables["tokenizer"].build()
    generator = tables["generator"].build(tokenizer.space, 10)
    images = torch.randn(batch, 3, 32, 32)
    codes = torch.randint(0, tokenizer.space.codebook_size, (batch, tokenizer.space.num_tokens))
    draws = Draws(seed=0, indices=torch.arange(batch), total=batch)

    def train_tokenizer() -> None:
        (tokenizer.decode(tokenizer.encode(images)) - images).square().mean().backward()

    def train_generator() -> None:
        losses = generator.loss(Latents(codes=codes), torch.arange(batch) % 10, draws=draws, progress=0.0)
        sum(losses.values()).backward()  # type: ignore[union-attr]

    return {"tokenizer": (tokenizer, train_tokenizer), "generator": (generator, train_generator)}


def measure(batch: int, seconds: float) -> dict[str, float]:
    """Images per second of each step, in this process."""
    rates = {}
    for name, (_, step) in steps(batch).items():
        step()
        count, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            step()
            count += 1
        rates[name] = count * batch / passed
    return rates


def started(way: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    """Starts a process that measures one setting."""
    environment = {name: value for name, value in os.environ.items() if name not in {w.split("=")[0] for w in WAYS}}
    environment |= [way.split("=")] if "=" in way else []
    command = [sys.executable, __file__, "--measure", f"--seconds={options.seconds}", f"--batch={options.batch}"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def images_per_second(way: str, load: str, options: argparse.Namespace) -> dict[str, float]:
    """The rates with one setting under a load; for two processes, their sum."""
    other = subprocess.Popen(LOOP) if load == "beside_a_loop" else None
    try:
        processes = [started(way, options) for _ in range(2 if load == "two_at_once" else 1)]
        rates = [json.loads(process.communicate()[0]) for process in processes]
    finally:
        if other is not None:
            other.kill()
    return {name: sum(rate[name] for rate in rates) for name in rates[0]}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    quick = {"seconds": 0.01, "batch": 2, "ways": [], "loads": LOADS[:1]}
    parser = harness.Parser(__doc__, {"batch": 64}, quick=quick, rounds=3)
    parser.add_argument(
        "ways", nargs="*", default=WAYS, metavar="NAME=VALUE", help="settings to measure, one at a time"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="per model")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=LOADS, help="default: all")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.options(arguments)
    if options.measure:
        print(json.dumps(measure(options.batch, options.seconds)))
        return {}
    ways, report = ["plain", *options.ways], harness.Report(options)
    rates = {load: {way: [] for way in ways} for load in options.loads}  # type: ignore[var-annotated]
    for _ in range(options.rounds):
        for load in options.loads:
            for way in ways:
                rates[load][way].append(images_per_second(way, load, options))
    for load, by_way in rates.items():
        for model in by_way["plain"][0]:
            seconds = {way: [1.0 / rate[model] for rate in found] for way, found in by_way.items()}
            found = harness.Comparison(seconds=seconds, processor_seconds=seconds, peak_bytes={}, results={})
            report.compared(f"training {model}, {load}", found, amount=1.0, unit="images")
    return report.finish()


if __name__ == "__main__":
    main()
