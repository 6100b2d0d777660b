"""How long the views of `robustok view` take to answer: python benchmarks/explorer.py runs/main_train [--rounds 10]

From the settings to the HTML, without the browser: the median, after one answer that warms up. The processor time is
what an idle machine needs where one thread computes (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import harness

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


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.Parser(__doc__, rounds=10)
    parser.add_argument("run", type=Path)
    options = parser.options(arguments)
    run, report = open_run(options.run, device=device_called(options.device)), harness.Report(options)
    for view, settings in VIEWS.items():
        found = harness.compare({view: partial(answer, run, view, settings)}, rounds=options.rounds)
        images, _ = found.results[view]
        median = harness.Spread.of(found.processor_seconds[view]).median
        columns = {"processor ms": harness.number(1e3 * median), "note": "" if "rx-tiles" in images else "cannot show"}
        report.compared(view, found, columns=lambda _, columns=columns: columns)
    return report.finish()


if __name__ == "__main__":
    main()
