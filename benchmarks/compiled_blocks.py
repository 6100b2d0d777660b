"""Measures training steps of main_train with compiled blocks on the CPU: `python benchmarks/compiled_blocks.py`.

Compiling is not counted; how long the first steps take, in which it happens, is reported, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import harness
from torch.utils.benchmark import timer
from waiting_threads import steps  # beside this file

from robustok_training.repeated_blocks import RepeatedBlocks


def train(blocks: RepeatedBlocks, step: Callable[[], None], count: int, precision: str) -> None:
    with blocks.running(), harness.autocast("cpu", precision):
        for _ in range(count):
            step()


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.Parser(__doc__, {"batch": 32, "steps": 10}, quick={"batch": 2, "steps": 1})
    options = parser.options(arguments)
    report = harness.Report(options)
    report.found["seconds_of_first_steps"] = {}
    for precision in ("no", "bf16"):
        for name, (network, step) in steps(options.batch).items():
            ways = {
                way: partial(train, blocks, step, options.steps, precision)
                for way, blocks in {
                    "plain": RepeatedBlocks((), [network], compiles=False, recomputes=False),
                    "compile": RepeatedBlocks((), [network], compiles=True, recomputes=False),
                }.items()
            }
            what, start = f"training {name}, precision {precision}", timer()
            ways["compile"]()
            report.found["seconds_of_first_steps"][what] = timer() - start
            found = harness.compare(ways, rounds=options.rounds)
            report.compared(what, found, amount=options.steps * options.batch, unit="images")
    return report.finish()


if __name__ == "__main__":
    main()
