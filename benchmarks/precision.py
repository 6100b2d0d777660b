"""Measures the speed of main_train's models in float32 and bfloat16 on the CPU: `python benchmarks/precision.py`.

Both run alternately in one process. Prints JSON: whether the device computes bfloat16 natively, which the precision
"auto" depends on; and for each model the median number of images per second in training steps and the ratio of bf16
to float32. To emulate a CPU without bfloat16, set ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time

import torch
from waiting_threads import BATCH, steps

from robustok_core.runs.precision import Precision, autocast, computes_bf16

WAYS: tuple[Precision, ...] = ("no", "bf16")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per model, precision and round")
    options = parser.parse_args()
    device = torch.device("cpu")
    report: dict[str, object] = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    report |= {"threads": torch.get_num_threads(), "computes_bf16": computes_bf16(device)}
    report["limits"] = {name: os.environ.get(name) for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")}
    for name, step in steps().items():
        rates: dict[Precision, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.rounds + 1):
            for way in WAYS:
                count, start = 0, time.perf_counter()
                while (passed := time.perf_counter() - start) < options.seconds or not count:
                    with autocast(way, device):
                        step()
                    count += 1
                rates[way].append(count * BATCH / passed)
        measured = {way: rates[way][1:] for way in WAYS}  # the first round warms up
        ratios = [bf16 / full for full, bf16 in zip(*measured.values(), strict=True)]
        medians = {way: round(statistics.median(values), 1) for way, values in measured.items()}
        report[name] = {"images_per_second": medians, "ratio": round(statistics.median(ratios), 3)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
