"""How long the views of `robustok view` take to answer: python benchmarks/explorer.py runs/main_train

The time from the settings to the HTML, without the browser: the median of ten, after one that warms up.
"""

from __future__ import annotations

import statistics
import sys
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
    run = open_run(Path(sys.argv[1]), device=device_called(None))
    for view, settings in VIEWS.items():
        seconds = []
        for _ in range(11):
            start = time.perf_counter()
            images, _ = answer(run, view, settings)
            seconds.append(time.perf_counter() - start)
        note = "" if "rx-tiles" in images else "  (this run cannot show it)"
        print(f"{view:12} {statistics.median(seconds[1:]) * 1e3:7.0f} ms{note}")


if __name__ == "__main__":
    main()
