"""Pages as readers see them: a headless Chromium that records errors and requests, and axe-core's audit.

Neither is part of robustok. A test is skipped, with the reason, where there is no Chromium or no npm registry. Where
the variable ROBUSTOK_REQUIRE_BROWSER is set, as CI does once it has found a Chromium, a missing browser is a failure.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

#: Of the npm package that audits a page; it is downloaded for the tests only.
AXE = "axe-core@4.11.0"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The installed Chromium; the variable ROBUSTOK_CHROMIUM names another one."""
    return os.environ.get("ROBUSTOK_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def started() -> Iterator[Any]:
    """A headless Chromium (playwright's `Browser`) for as many pages as needed; skips the test if there is none."""
    if importlib.util.find_spec("playwright") is None:
        _skip("playwright, which drives the browser, is missing")
    from playwright import sync_api

    if (program := chromium()) is None:
        _skip("there is no Chromium; install one, or name its program in ROBUSTOK_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def _skip(reason: str) -> NoReturn:
    if os.environ.get("ROBUSTOK_REQUIRE_BROWSER"):
        pytest.fail(f"this test must run here, and {reason}")
    pytest.skip(reason)


class Visit:
    """An open page.

    Attributes:
        page: playwright's `Page`.
        errors: what the console showed as errors, and exceptions that nothing caught.
        requests: the addresses that the page asked for, after its own, except those that hold their own data.
    """

    def __init__(self, browser: Any, address: str, *, width: int, height: int) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.goto(address)

    def _note(self, url: str, address: str) -> None:
        if url != address and not url.startswith(("data:", "blob:")):
            self.requests.append(url)

    @property
    def overflows(self) -> bool:
        """Whether the page is wider than the window, so that a reader has to scroll sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def barriers(self) -> list[str]:
        """What axe-core finds against WCAG 2.1 AA, but for drawings: a line a rule, with the first element."""
        self.page.evaluate(axe())
        found = self.page.evaluate(
            "() => axe.run({include: [['html']], exclude: [['svg']]}, {resultTypes: ['violations'],"
            " runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
        )
        return [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in found["violations"]]


@contextmanager
def visited(browser: Any, address: str | Path, *, width: int = 1440, height: int = 900) -> Iterator[Visit]:
    """Opens a page, by its address or file."""
    where = address.resolve().as_uri() if isinstance(address, Path) else address
    visit = Visit(browser, where, width=width, height=height)
    try:
        yield visit
    finally:
        visit.page.close()


@functools.cache
def axe() -> str:
    """The script of axe-core, which npm downloads; skips the test if it cannot."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm, which downloads axe-core, is missing")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [npm, "pack", AXE, "--prefer-offline", "--fetch-retries=0", "--pack-destination", folder],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
        )
        if done.returncode:
            pytest.skip(f"npm could not download {AXE}: {done.stderr.strip()[-300:]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            script = package.extractfile("package/axe.min.js")
            assert script is not None
            return script.read().decode()
