"""How long the views of `robustok view` take to answer: python benchmarks/explorer.py runs/main_train [--repeats 10]

From the settings to the HTML, without the browser: the median, after one answer that warms up. The processor time is
what an idle machine needs where one thread computes (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from robustok_core.runs.devices import device_called
from robustok_explorer.answers import answer
from robustok_explorer.opened_run import open_run

VIEWS = {
    "perturb": {"image": 3, "num_images": 3},
    "keep": {"image": 3, "num_images": 3},
    "paint": {"image": 3, "source": 5, "tokens": [27, 28, 35, 36]},
    "neighbours": {"image": 3, "token": 36},
    "sample": {"class_": "0", "count": 8, "guidance": 1.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=10)
    asked = parser.parse_args()
    run = open_run(asked.run, device=device_called(None))
    for view, settings in VIEWS.items():
        images, _ = answer(run, view, settings)
        waited, computed = [], []
        for _ in range(asked.repeats):
            wall, processor = time.perf_counter(), time.process_time()
            images, _ = answer(run, view, settings)
            waited.append(time.perf_counter() - wall)
            computed.append(time.process_time() - processor)
        note = "" if "rx-tiles" in images else "  (this run cannot show it)"
        medians = f"{statistics.median(waited) * 1e3:7.0f} ms, processor {statistics.median(computed) * 1e3:7.0f} ms"
        print(f"{view:12}{medians}{note}")


if __name__ == "__main__":
    main()
