"""What ran: the command can be run again as it stands."""

from __future__ import annotations

import html
import re
import shlex

from robustok_report.page import Page
from robustok_report.sections.overview import command
from robustok_toolkit.report_parts import Cell, Section, Table


def test_a_long_command_has_a_line_for_each_option_and_the_same_words():
    words = ["run", "main_train", "--set", "run.name=x --y z", "--set", f"data.path={'a' * 80}", "--fresh"]
    text = command([{"command": words}])
    assert shlex.split(text.replace("\\\n", "")) == ["robustok", *words]
    assert text.count("\\\n  --") == 3


def test_a_page_shows_a_long_command_line_by_line():
    words = ["run", "main_train", *(word for number in range(3) for word in ("--set", f"data.path={number}{'a' * 40}"))]
    text = command([{"command": words}])
    section = Section("Origin", [Table("Command", ["", ""], [["Command", Cell(text, code=True)]])])
    page = Page(title="a", subtitle="b", sections=[section], missing=[]).html()
    (shown,) = re.findall(r'<span class="command">(.*?)</span>', page, re.DOTALL)
    assert html.unescape(shown) == text


def test_a_short_command_is_one_line():
    assert command([{"command": ["run", "a", "--set", "b=c d"]}]) == "robustok run a --set 'b=c d'"
