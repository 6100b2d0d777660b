"""A live progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import Progress

from robustok_core.values.numbers import duration_text, number_text
from robustok_core.values.printable import printable
from robustok_core.values.terminal import make_progress, say

_SECONDS_BETWEEN_LINES = 10.0


class StepProgress:
    """Shows the progress of a stage. Use as a context manager.

    Args:
        console: where to print, or None to stay silent.
        title: the stage.
        total: number of steps.
        start: number of steps done before.
    """

    def __init__(self, console: Console | None, title: str, total: int, start: int = 0) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._began = self._last_line = time.monotonic()
        self._start = start
        self._text, self._lines = "", False
        self._bar: Progress | None = None
        if console is not None and console.is_terminal:
            self._bar = make_progress(console)
            self._task = self._bar.add_task(printable(title), total=total, completed=start, values="")

    def __enter__(self) -> StepProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Shows that `done` steps are done, with values beside the bar.

        Elsewhere than on a terminal a line is printed every ten seconds, for calls with values, which may be empty, and
        for the last step, unless it has no values and came before the first line.
        """
        if self._console is None:
            return
        text = "  ".join(f"{name} {number_text(value, 4)}" for name, value in (values or {}).items())
        if self._bar is not None:
            self._text = printable(text) or self._text
            self._bar.update(self._task, completed=done, values=self._text)
        elif values is not None and self._is_due(done, bool(values)):
            self._last_line, self._lines = time.monotonic(), True
            taken = self._last_line - self._began
            left = taken / max(done - self._start, 1) * (self._total - done)
            time_text = f"in {duration_text(taken)}" if done == self._total else f"{duration_text(left)} left"
            say(self._console, f"{self._title} {done:,}/{self._total:,}  {time_text}  {text}".rstrip())

    def _is_due(self, done: int, has_values: bool) -> bool:
        """Whether a line is to be printed."""
        is_last = done == self._total and (has_values or self._lines)
        return is_last or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES
