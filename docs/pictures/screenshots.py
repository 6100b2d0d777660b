"""Takes the pictures of the report and of the explorer: python docs/pictures/screenshots.py RUN_IN_COLOUR RUN_IN_GREY

They are for README.md, docs/report.md and docs/explorer.md. Those in the repository show the runs of
`robustok run colour_post_train` (runs/colour_train) and `robustok run post_train` (runs/main_train), seed 0. A headless
Chromium shows the pages (playwright drives it). The report is written anew by the code that is here. A run is called
as seen from two folders above it: runs/colour_train.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "helpers"))

from browser import started, visited  # noqa: E402
from robustok_core.cli import main as robustok  # noqa: E402
from robustok_core.runs.devices import device_called  # noqa: E402
from robustok_explorer.opened_run import open_run  # noqa: E402
from robustok_explorer.server import served  # noqa: E402

#: Sections of the report by the picture that they become, of the run in colour and of the one in grey.
IN_COLOUR = {"report_post_training": "Post-training", "report_samples": "Samples"}
IN_GREY = {"report_robustness": "Robustness"}


def called(run: Path) -> Path:
    """A run's short path, and the working folder that goes with it."""
    os.chdir(run.resolve().parents[1])
    return Path(run.resolve().parent.name, run.name)


def report_of(run: Path, folder: str) -> Path:
    """The report of a run, written into a folder."""
    file = Path(folder) / f"{run.name}.html"
    try:
        robustok(["report", str(called(run)), "--out", str(file)])
    except SystemExit as ended:
        if ended.code:
            raise
    return file


def section(page: Any, title: str) -> Any:
    """A section of the report, once its figures are drawn."""
    found = page.locator("section").filter(has=page.get_by_role("heading", name=title, exact=True)).first
    found.scroll_into_view_if_needed(timeout=10_000)
    page.wait_for_timeout(2000)
    return found


def save(name: str, png: bytes) -> None:
    """Writes a screenshot as WebP, a fifth of the size of the PNG."""
    file = HERE / f"{name}.webp"
    Image.open(io.BytesIO(png)).convert("RGB").save(file, quality=82, method=6)
    print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")


def take_report(browser: Any, file: Path, sections: dict[str, str], *, top: str | None = None) -> None:
    """Pictures of sections; and of the window where the section `top` begins, as report.webp."""
    with visited(browser, file, width=1200, height=880) as visit:
        for name, title in sections.items():
            save(name, section(visit.page, title).screenshot())
        if top is not None:
            section(visit.page, top).evaluate("it => scrollTo(0, it.getBoundingClientRect().top + scrollY - 16)")
            visit.page.wait_for_timeout(500)
            save("report", visit.page.screenshot())


def take_explorer(browser: Any, run: Path) -> None:
    """The view `Perturb`, with δ = 64, in which the decoders before and after post-training differ visibly."""
    with (
        served(open_run(called(run), device=device_called(None))) as address,
        visited(browser, address, width=1200, height=900) as visit,
    ):
        visit.page.wait_for_selector(".rx-tiles img", timeout=60_000)
        lines = visit.page.locator(".rx-lines").first
        before = lines.text_content()
        for name, value in (("δ", "64"), ("α", "0.5")):
            number = visit.page.get_by_role("spinbutton", name=name).first
            number.fill(value)
            number.press("Enter")
        while lines.text_content() == before:
            visit.page.wait_for_timeout(200)
        visit.page.wait_for_timeout(2000)
        save("explorer", visit.page.screenshot(full_page=True))


def main() -> None:
    in_colour, in_grey = (Path(argument).resolve() for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder, started() as browser:
        take_report(browser, report_of(in_colour, folder), IN_COLOUR, top="Reconstructions")
        take_report(browser, report_of(in_grey, folder), IN_GREY)
        take_explorer(browser, in_colour)


if __name__ == "__main__":
    main()
