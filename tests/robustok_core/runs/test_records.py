"""JSON files of robustok are read with their shape checked; the message names the file, the key and the problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen, validators

from robustok_core import RunError
from robustok_core.runs.records import file_name, read_record, record_of


@frozen(kw_only=True)
class Part:
    file: str
    rows: int = field(validator=validators.ge(1))


@frozen(kw_only=True)
class Index:
    parts: list[Part]
    sigmas: tuple[float, ...] = ()
    stages: dict[str, Part] = field(factory=dict)
    note: str | None = None
    anything: Any = None


def test_what_is_read_has_the_types_of_the_class(tmp_path):
    file = tmp_path / "index.json"
    table = {"parts": [{"file": "a", "rows": 2, "later": 1}], "sigmas": [1, 0.5], "anything": {"b": [1]}, "more": 0}
    file.write_text(json.dumps(table))
    index = read_record(Index, file)
    assert index == Index(parts=[Part(file="a", rows=2)], sigmas=(1.0, 0.5), anything={"b": [1]})
    assert isinstance(index.sigmas[0], float)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "parts: the key is missing"),
        ([], "expected an object, found list []"),
        ({"parts": "ab"}, "parts: expected a list, found str 'ab'"),
        ({"parts": [3]}, "parts.0: expected an object, found int 3"),
        ({"parts": [{"file": "a", "rows": 2}, {"file": "b"}]}, "parts.1.rows: the key is missing"),
        ({"parts": [{"file": "a", "rows": "2"}]}, "parts.0.rows: expected int, found str '2'"),
        ({"parts": [{"file": "a", "rows": True}]}, "parts.0.rows: expected int, found bool True"),
        ({"parts": [{"file": "a", "rows": 0}]}, "'rows' must be >= 1: 0"),
        ({"parts": [], "sigmas": [10**400]}, "sigmas.0: expected float, found a number that is too large"),
        ({"parts": [], "stages": {"a": None}}, "stages.a: expected an object, found NoneType None"),
        ({"parts": [], "stages": 3}, "stages: expected an object"),
        ({"parts": [], "note": 3}, "note: expected str, found int 3"),
        ({"parts": [], "note": [0] * 10**6}, "note: expected str, found list [0, 0,"),
    ],
)
def test_other_content_is_refused_by_its_key(content, message):
    with pytest.raises(RunError) as caught:
        record_of(Index, content, Path("index.json"))
    assert caught.value.where == "index.json"
    assert message in caught.value.what
    assert len(caught.value.what) < 200


@frozen(kw_only=True)
class Fixed:
    grid: tuple[int, str]
    file: str = field(default="a", validator=file_name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grid": [1]}, "grid: expected 2 items, found 1"),
        ({"grid": [1, "a", "b"]}, "grid: expected 2 items, found 3"),
        ({"grid": ["a", 1]}, "grid.0: expected int, found str 'a'"),
        ({"grid": [1, "a"], "file": "../a"}, "file: str '../a' is not the name of a file"),
        ({"grid": [1, "a"], "file": "a\0"}, "is not the name of a file"),
        ({"grid": [1, "a"], "file": ""}, "file: str '' is not the name of a file"),
    ],
)
def test_a_fixed_number_of_items_and_the_name_of_a_file_are_checked(content, message):
    assert record_of(Fixed, {"grid": [1, "a"]}, Path("index.json")).grid == (1, "a")
    with pytest.raises(RunError) as caught:
        record_of(Fixed, content, Path("index.json"))
    assert message in caught.value.what


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read: "),
        (b'{"parts": [', "cannot be read: "),
        (b'{"note": "\xff"}', "cannot be read: 'utf-8'"),
        (b"[" * 100_000 + b"]" * 100_000, "cannot be read: it is nested too deeply"),
        (b'{"parts": ' + b"9" * 5000 + b"}", "cannot be read: Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_json_is_one_message(content, message, tmp_path):
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_record(Index, tmp_path / "index.json")
    assert message in caught.value.what
    assert caught.value.where == str(tmp_path / "index.json")


def test_a_missing_file_is_one_message(tmp_path):
    with pytest.raises(RunError, match=r"index\.json: cannot be read: No such file"):
        read_record(Index, tmp_path / "index.json")
