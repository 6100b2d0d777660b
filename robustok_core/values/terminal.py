"""Everything that robustok prints passes through this module, so that no foreign text reaches a terminal as it is.

See `printable`. Rich's own markup ("[red]"), emoji codes (":x:") and highlighting are off: a folder may be called so.
"""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from robustok_core.values.numbers import duration_text, finite_only
from robustok_core.values.printable import printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

#: What a stream may be told to do with text that it cannot encode, and that ends in an exception.
_FAILING = ("strict", "surrogateescape", "surrogatepass")


def echo(text: object, *, err: bool = False) -> None:
    """Prints one line on standard output, or on standard error; it is not wrapped."""
    echo_lines(printable(text), err=err)


def echo_lines(text: object, *, err: bool = False) -> None:
    """Prints text whose lines are our own: JSON, a recipe, a message with a hint."""
    import click

    stream = sys.stderr if err else sys.stdout
    accept_all(stream)
    click.echo(printable_lines(text), file=stream)


def echo_json(value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Prints JSON that every program reads: a number that is not finite is null. `default` is as of `json.dumps`."""
    echo_lines(json.dumps(finite_only(value), indent=2, default=default, allow_nan=False))


@contextmanager
def printable_notes() -> Iterator[None]:
    """While it is open, warnings and log records that no handler takes are printed by this module, too."""
    before, last_resort = warnings.showwarning, logging.lastResort

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        echo_lines(warnings.formatwarning(message, category, filename, lineno).rstrip("\n"), err=True)

    warnings.showwarning, logging.lastResort = show, _Printing(logging.WARNING)  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning, logging.lastResort = before, last_resort


class _Printing(logging.Handler):
    """Prints records; a message's text may have lines, its arguments are foreign text."""

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple):
            arguments = (each if isinstance(each, (int, float)) else printable(each) for each in record.args)
            record = logging.makeLogRecord({**record.__dict__, "args": tuple(arguments)})
        echo_lines(self.format(record), err=True)


#: Characters that a column of a table needs at least, with the space beside it.
_NARROWEST = 10


def make_console(*, quiet: bool = False, err: bool = False) -> Console:
    """The console of a command, on standard output or standard error; a quiet one prints nothing."""
    from rich.console import Console

    accept_all(sys.stderr if err else sys.stdout)
    return Console(markup=False, emoji=False, highlight=False, quiet=quiet, stderr=err)


def say(console: Console, text: object) -> None:
    """Prints one line on any console; it is not wrapped."""
    from rich.text import Text

    console.print(Text(printable(text)), highlight=False, soft_wrap=True)


def say_wrapped(console: Console, text: object, *, hang: int) -> None:
    """Prints one line; on a terminal, what does not fit goes on below, `hang` columns from the left."""
    line = printable(text)
    if console.is_terminal:
        indent, width = " " * min(hang, console.width // 2), max(console.width, 20)
        line = textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)
    for part in line.split("\n"):
        say(console, part)


def print_table(console: Console, headers: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table without lines; a long cell continues below instead of being cut, the first one of a row last."""
    from rich.table import Column, Table
    from rich.text import Text

    cells = [[Text(printable(cell)) for cell in row] for row in (headers, *rows)]
    names = max(row[0].cell_len for row in cells)
    whole = names + _NARROWEST * (len(headers) - 1) <= console.width
    columns = [Column(title, overflow="fold", no_wrap=whole and not number) for number, title in enumerate(cells[0])]
    table = Table(*columns, box=None)
    for row in cells[1:]:
        table.add_row(*row)
    console.print(table, highlight=False)


def make_progress(console: Console) -> Progress:
    """A live progress bar on one line. Its texts, the description and the field `values`, must be `printable`.

    What does not fit the width is cut from the end of `values`.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            """The time left, or the time taken once all is done."""
            seconds = task.finished_time if task.finished else task.time_remaining
            return Text("" if seconds is None else f"{duration_text(seconds)}{'' if task.finished else ' left'}")

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeLeft(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[values]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        console=console,
        expand=True,
    )


def accept_all(stream: TextIO) -> None:
    """Makes a stream escape what its encoding does not have (é on an ASCII terminal) instead of failing."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and getattr(stream, "errors", None) in _FAILING:
        reconfigure(errors="backslashreplace")
