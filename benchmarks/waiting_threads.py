"""How fast a small training is by what OpenMP's threads do while they wait, on an idle machine and beside a program.

    python benchmarks/waiting_threads.py
    python benchmarks/waiting_threads.py --rounds 5 --seconds 6 GOMP_SPINCOUNT=1000 OMP_WAIT_POLICY=PASSIVE

Each way is a process of its own, as OpenMP reads these settings once. In every round all ways take turns, first alone,
then beside an endless loop of one thread, then two of them at once, each with all cores: so each is compared with the
plain way in the same minutes. Prints JSON: for each way and load the median images a second of training steps of
main_train's tokenizer and generator, and the ratio to the plain way (of two at once: of their sums).
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
    """Images a second of each step, in this process."""
    found = {}
    for name, step in steps().items():
        step()
        count, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            step()
            count += 1
        found[name] = count * BATCH / passed
    return found


def started(way: str, seconds: float) -> subprocess.Popen[str]:
    """A process that measures one way."""
    environment = {name: value for name, value in os.environ.items() if name not in {w.split("=")[0] for w in WAYS}}
    environment |= [way.split("=")] if "=" in way else []
    command = [sys.executable, __file__, "--measure", "--seconds", str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def images_per_second(way: str, load: str, seconds: float) -> dict[str, float]:
    """Of one way under a load; of two at once the sum."""
    other = subprocess.Popen(LOOP) if load == "beside_a_loop" else None
    try:
        working = [started(way, seconds) for _ in range(2 if load == "two_at_once" else 1)]
        found = [json.loads(process.communicate()[0]) for process in working]
    finally:
        if other is not None:
            other.kill()
    return {name: sum(one[name] for one in found) for name in found[0]}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", default=WAYS, metavar="NAME=VALUE", help="settings, each a way of its own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each model")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.seconds)))
        return
    ways = ["plain", *options.ways]
    found: dict[str, dict[str, list[dict[str, float]]]] = {load: {way: [] for way in ways} for load in LOADS}
    for _ in range(options.rounds):
        for load in LOADS:
            for way in ways:
                found[load][way].append(images_per_second(way, load, options.seconds))
    report: dict[str, object] = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    report |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": options.rounds}
    for load, by_way in found.items():
        report[load] = {
            way: {
                name: {
                    "images_per_second": round(statistics.median(one[name] for one in runs), 1),
                    "ratio": round(
                        statistics.median(
                            one[name] / plain[name] for one, plain in zip(runs, by_way["plain"], strict=True)
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
