"""Measures the speed of main_train's models in float32 and bfloat16 on the CPU: `python benchmarks/precision.py`.

Also reported: whether the device computes bfloat16 natively, which the precision "auto" depends on. To emulate a CPU
without bfloat16, set ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import harness
import torch
from waiting_threads import steps  # beside this file

from robustok_core.runs.precision import Precision, autocast, computes_bf16

CPU = torch.device("cpu")
WAYS: tuple[Precision, ...] = ("no", "bf16")


def step_in(precision: Precision, step: Callable[[], None], count: int) -> None:
    for _ in range(count):
        with autocast(precision, CPU):
            step()


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = harness.Parser(__doc__, {"batch": 64, "steps": 10}, quick={"batch": 2, "steps": 1}).options(arguments)
    report = harness.Report(options)
    report.found["computes_bf16"] = computes_bf16(CPU)
    report.found["limits"] = {name: os.environ.get(name) for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")}
    for name, (_, step) in steps(options.batch).items():
        ways = {way: partial(step_in, way, step, options.steps) for way in WAYS}
        found = harness.compare(ways, rounds=options.rounds)
        report.compared(f"training {name}", found, amount=options.steps * options.batch, unit="images")
    return report.finish()


if __name__ == "__main__":
    main()
