"""The one module that prints."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

import robustok_core
from robustok_core.values.terminal import (
    echo,
    echo_lines,
    make_console,
    make_progress,
    print_table,
    printable_notes,
    say,
)

HOSTILE = "[bold]d[/b]/ :x: \x1b[31m\u202e\udcff"
SHOWN = "[bold]d[/b]/ :x: \\u001b[31m\\u202e\\udcff"


def test_a_line_is_printed_as_it_is_except_for_what_a_terminal_would_obey(capsys):
    echo(f"{HOSTILE}\nsecond")
    echo_lines(f"{HOSTILE}\nsecond", err=True)
    captured = capsys.readouterr()
    assert captured.out == f"{SHOWN}\\u000asecond\n"
    assert captured.err == f"{SHOWN}\nsecond\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_no_console_reads_markup_in_names(terminal):
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=terminal, color_system=None)  # a caller's own
    say(console, HOSTILE)
    print_table(console, [HOSTILE], [[HOSTILE], ["[final]"]])
    printed = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert printed.count(SHOWN) == 3
    assert "[final]" in printed
    assert "\u202e" not in printed


def test_warnings_and_notes_of_libraries_are_printed_by_it_too(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    with printable_notes():
        logging.getLogger("some.library").warning("%s: left out", HOSTILE)
        warnings.showwarning(UserWarning(HOSTILE), UserWarning, "file.py", 3)
    errors = capsys.readouterr().err
    assert f"{SHOWN}: left out\n" in errors
    assert f"file.py:3: UserWarning: {SHOWN}" in errors


def test_a_progress_bar_does_not_read_markup_either():
    file = io.StringIO()
    with make_progress(Console(file=file, width=200, force_terminal=True)) as bar:
        bar.add_task("stage[/b]", total=1, values="[red]loss")
    assert "stage[/b]" in file.getvalue()
    assert "[red]loss" in file.getvalue()


def test_what_a_terminal_cannot_encode_is_escaped_instead_of_ending_the_command(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    echo("Fréchet")
    say(make_console(), "Fréchet")
    print_table(make_console(), ["Fréchet"], [["日本"]])
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii").split() == ["Fr\\xe9chet", "Fr\\xe9chet", "Fr\\xe9chet", "\\u65e5\\u672c"]


def test_everything_is_printed_by_this_module():
    """Anything else would let foreign text through; what starts the command has one word of its own to say."""
    root = Path(robustok_core.__file__).parents[1]
    plugins = root / "plugins" if (root / "plugins").is_dir() else root
    files = [*(root / "robustok_core").rglob("*.py"), *(f for p in plugins.glob("robustok*") for f in p.rglob("*.py"))]
    printing = re.compile(
        r"(?<!\.)\bprint\(|\bConsole\(|click\.s?echo\(|\.print\(|rich\.print|from_markup|std(out|err)\.write|TextColumn\("
    )
    found = {
        f"{file.relative_to(root)}:{number}"
        for file in files
        if file.name not in ("terminal.py", "__main__.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if printing.search(line)
    }
    assert found == set()
