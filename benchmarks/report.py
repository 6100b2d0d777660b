"""What a report costs: python benchmarks/report.py runs/main_train [--chromium PROGRAM]

The report of the run, and the comparison of the run with nineteen copies of it: seconds, processor seconds and peak
memory of a process that does nothing else, and the size of the file. Both pages in a headless Chromium (with the
package playwright): seconds until the page is loaded, and until its first figure is drawn; the median of five, each in
a new browser, because a warm one has compiled plotly.js.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness

#: Both widths of the window: a desk and a phone.
WIDTHS = (1440, 360)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.Parser(__doc__, {"runs": 20}, quick={"runs": 1, "chromium": None})
    parser.add_argument("run", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.options(arguments)
    report = harness.Report(options)
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted({1, options.runs}):
            name, page = f"{count} runs", Path(folder) / f"{count}.html"
            runs = [_copy(options.run, Path(folder) / f"run{number}") for number in range(count)]
            seconds, busy, memory = _made(runs, page)
            report.found[name] = {
                "seconds": round(seconds, 1),
                "processor_seconds": round(busy, 1),
                "peak_gib": round(memory, 2),
                "megabytes": round(page.stat().st_size / 1e6, 1),
            }
            for width in WIDTHS if options.chromium else ():
                loaded, drawn = _opened(page, width, options.chromium, options.rounds)
                found = {"loaded_after": round(loaded, 2), "first_figure_after": round(drawn, 2)}
                report.found[f"{name}, {width} px"] = found
    return report.finish()


def _copy(run: Path, to: Path) -> Path:
    """The run under another name, without its checkpoints."""
    if not to.exists():
        shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", "history"))
    return to


def _made(runs: list[Path], page: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and GiB of `robustok report`, the start of Python included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "robustok_core", "report", *map(str, runs), "--out", str(page)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, after.ru_maxrss / 2**20  # the largest of the children so far


def _opened(page: Path, width: int, chromium: str, rounds: int) -> tuple[float, float]:
    """Seconds until the page is loaded, and until its first figure is drawn after a jump to it."""
    from playwright.sync_api import sync_playwright

    loaded, drawn = [], []
    with sync_playwright() as playwright:
        for _ in range(rounds):
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page(viewport={"width": width, "height": 900})
            start = time.perf_counter()
            tab.goto(page.as_uri())
            loaded.append(time.perf_counter() - start)
            tab.evaluate("document.querySelector('[data-plot]').scrollIntoView()")
            tab.wait_for_selector("[data-plot] .main-svg")
            drawn.append(time.perf_counter() - start)
            browser.close()
    return statistics.median(loaded), statistics.median(drawn)


if __name__ == "__main__":
    main()
