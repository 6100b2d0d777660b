"""Takes docs/pictures/explorer.png: python docs/pictures/explorer.py runs/main_train

It shows the page of a run of `main_train` in a headless Chromium (playwright drives it), with α at a half.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "helpers"))

from browser import started, visited  # noqa: E402
from robustok_core.runs.devices import device_called  # noqa: E402
from robustok_explorer.opened_run import open_run  # noqa: E402
from robustok_explorer.server import served  # noqa: E402


def main() -> None:
    run = open_run(Path(sys.argv[1]), device=device_called(None))
    with served(run) as address, started() as browser, visited(browser, address, width=1200, height=900) as visit:
        visit.page.wait_for_selector(".rx-tiles img", timeout=60_000)
        lines = visit.page.locator(".rx-lines").first
        before = lines.text_content()
        alpha = visit.page.get_by_role("spinbutton", name="α").first
        alpha.fill("0.5")
        alpha.press("Enter")
        while lines.text_content() == before:
            visit.page.wait_for_timeout(200)
        visit.page.screenshot(path=HERE / "explorer.png", full_page=True)


if __name__ == "__main__":
    main()
