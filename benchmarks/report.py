"""What a report costs: python benchmarks/report.py runs/main_train [--chromium PROGRAM]

The report of the run, and the comparison of the run with nineteen copies of it: seconds, processor seconds and peak
memory of a process that does nothing else, and the size of the file. Both pages in a headless Chromium (with the
package playwright): seconds until the page is loaded, and until its first figure is drawn; the median of five, each in
a new browser, because a warm one has compiled plotly.js.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS, REPEATS = 20, 5
#: Both widths of the window: a desk and a phone.
WIDTHS = (1440, 360)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages = {"one run": Path(folder) / "one.html", f"{RUNS} runs": Path(folder) / "several.html"}
        for (name, page), count in zip(pages.items(), (1, RUNS), strict=True):
            runs = [_copy(asked.run, Path(folder) / f"run{number}") for number in range(count)]
            seconds, busy, memory = _made(runs, page)
            cost = f"{seconds:.1f} s, {busy:.1f} s of the processor, peak {memory:.2f} GiB"
            print(f"{name}: {cost}, {page.stat().st_size / 1e6:.1f} MB", flush=True)
        for name, page in pages.items():
            for width in WIDTHS:
                loaded, drawn = _opened(page, width, asked.chromium)
                print(f"{name}, {width} px: loaded after {loaded:.2f} s, first figure after {drawn:.2f} s", flush=True)


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


def _opened(page: Path, width: int, chromium: str | None) -> tuple[float, float]:
    """Seconds until the page is loaded, and until its first figure is drawn after a jump to it."""
    from playwright.sync_api import sync_playwright

    loaded, drawn = [], []
    with sync_playwright() as playwright:
        for _ in range(REPEATS):
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
