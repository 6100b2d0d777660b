"""Foreign text, made safe to print."""

from __future__ import annotations

import json
import unicodedata

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from robustok_core.values.printable import printable, printable_lines


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_nothing_that_is_printed_controls_a_terminal_or_fails_to_encode(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert not [character for character in shown if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\ufeff")


@pytest.mark.parametrize("text", ["Fréchet", "日本", "عربي", "می‌خواهم", "👩‍🚀", "a\\b", "[bold]x[/]", ":smile:", ""])
def test_text_in_any_language_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\u001b[31mred"),
        ("a\nerror: b", "a\\u000aerror: b"),
        ("\r\x08\x7f\x9b", "\\u000d\\u0008\\u007f\\u009b"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_could_do_something_is_shown_as_its_escape(text, shown):
    assert printable(text) == shown


def test_lines_stay_where_they_are_wanted_and_nothing_else_does():
    assert printable_lines("a\n\tb\x1b\r\nc") == "a\n    b\\u001b\\u000d\nc"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_in_toml_the_escapes_mean_the_same_text(text):
    assert tomli.loads(f"a = {printable(json.dumps(text, ensure_ascii=False))}")["a"] == text
