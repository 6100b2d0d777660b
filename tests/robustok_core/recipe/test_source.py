"""Recipe files: where each key stands, and how one recipe lies over another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from robustok_core import RobustokError
from robustok_core.recipe.source import (
    Source,
    find_recipe,
    merge,
    override,
    parse_override,
    read_source,
    stage_name,
)


def source(text: str, place: str = "r.toml") -> Source:
    return Source(tomli.loads(text), {(): place})


def over(base: str, upper: str) -> dict[str, Any]:
    """The table of one recipe laid over another."""
    return merge(source(base), source(upper)).table


def test_every_key_stands_at_its_line(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(
        '# a recipe\n[run]\nname = "r"\n\n[tokenizer]\nquantizer = { use = "vq", width = 4 }\n'
        '[[stage]]\nuse = "a"\n[stage.losses]\none = 1\n[[stage]]\nuse = "b"\n'
    )
    found = read_source(file)
    lines = {
        ("run", "name"): 3,
        ("tokenizer", "quantizer"): 6,
        ("tokenizer", "quantizer", "width"): 6,
        ("tokenizer", "missing"): 5,
        ("stage", 0, "use"): 8,
        ("stage", 0, "losses", "one"): 10,
        ("stage", 1, "use"): 12,
    }
    assert {path: found.location(path) for path in lines} == {path: f"{file}:{line}" for path, line in lines.items()}
    assert found.location(("data",)) == str(file)


def test_tables_are_merged_key_by_key_and_lists_replaced():
    assert over("[a]\nx = 1\nl = [1, 2]\n[a.b]\ny = 2", "[a]\nl = [3]\n[a.b]\nz = 3") == {
        "a": {"x": 1, "l": [3], "b": {"y": 2, "z": 3}}
    }


def test_a_table_of_the_same_component_is_merged_and_one_of_another_replaced():
    base = '[tokenizer]\nuse = "conv"\nwidth = 4'
    assert over(base, "[tokenizer]\nsize = 8") == {"tokenizer": {"use": "conv", "width": 4, "size": 8}}
    assert over(base, '[tokenizer]\nuse = "conv"\nsize = 8')["tokenizer"]["width"] == 4
    assert over(base, '[tokenizer]\nuse = "vit"\nsize = 8') == {"tokenizer": {"use": "vit", "size": 8}}


def test_stages_are_merged_by_name_and_new_ones_follow():
    base = '[[stage]]\nuse = "a"\nx = 1\n[[stage]]\nuse = "a"\nname = "again"\nx = 2'
    upper = '[[stage]]\nuse = "a"\nname = "again"\ny = 3\n[[stage]]\nuse = "b"'
    assert over(base, upper)["stage"] == [
        {"use": "a", "x": 1},
        {"use": "a", "name": "again", "x": 2, "y": 3},
        {"use": "b"},
    ]


def test_merging_changes_neither_recipe():
    base, upper = source("[a]\nx = 1"), source("[a]\ny = 2")
    merge(base, upper).table["a"]["x"] = 9
    assert (base.table, upper.table) == ({"a": {"x": 1}}, {"a": {"y": 2}})


def test_a_change_is_placed_at_the_command_that_made_it():
    changed = override(source('[[stage]]\nuse = "a"'), ["stage.a.x=1", "run.seed=3"])
    assert changed.table == {"stage": [{"use": "a", "x": 1}], "run": {"seed": 3}}
    assert changed.location(("stage", 0, "x")) == "--set stage.a.x"
    assert changed.location(("stage", 0, "use")) == "r.toml"


def test_another_component_is_set_before_its_options_in_whatever_order_they_are_given():
    base = source('[tokenizer]\nuse = "conv"\nwidth = 4')
    changed = override(base, {"tokenizer.size": 8, "tokenizer.use": "vit"})
    assert changed.table == {"tokenizer": {"use": "vit", "size": 8}}
    assert base.table == {"tokenizer": {"use": "conv", "width": 4}}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("run.name.x", "'name' is not a table"),
        ("stage.b.x", "no stage is called 'b'"),
        ("stage.a", "name a stage and one of its keys"),
    ],
)
def test_a_change_of_what_is_not_there_is_refused(key, words):
    with pytest.raises(RobustokError, match=words) as caught:
        override(source('[run]\nname = "r"\n[[stage]]\nuse = "a"'), {key: 1})
    assert caught.value.where == f"--set {key}"


@given(st.integers() | st.booleans() | st.floats(allow_nan=False) | st.lists(st.integers(), max_size=3))
def test_a_value_of_the_command_line_is_read_as_toml(value):
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert parse_override(f"a.b={text}") == ("a.b", value)


def test_a_base_is_found_beside_the_recipe_that_extends_it(tmp_path, monkeypatch):
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.toml").write_text("[run]\nseed = 1\n")
    (tmp_path / "bases" / "r.toml").write_text('extends = ["base.toml"]\n[run]\nname = "r"\n')
    monkeypatch.chdir(tmp_path)
    found = read_source(Path("bases/r.toml"))
    assert found.table == {"run": {"seed": 1, "name": "r"}}
    assert found.location(("run", "seed")) == "bases/base.toml:2"


def test_later_bases_lie_over_earlier_ones(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.toml").write_text(f"[run]\nseed = {number}\n")
    (tmp_path / "r.toml").write_text('extends = ["1.toml", "2.toml"]\n')
    assert read_source(tmp_path / "r.toml").table == {"run": {"seed": 2}}


def test_extends_that_names_no_file_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text("extends = 3\n")
    with pytest.raises(RobustokError, match=r"r\.toml:1: `extends` must be a file name or a list of them"):
        read_source(tmp_path / "r.toml")


def test_a_bundled_recipe_is_found_with_and_without_its_ending():
    assert find_recipe("main_train") == find_recipe("main_train.toml")


@pytest.mark.parametrize(
    ("table", "name"), [({"use": "a"}, "a"), ({"use": "a", "name": "b"}, "b"), ({}, "?"), (3, "?")]
)
def test_a_stage_is_called_as_it_says_or_as_what_it_uses(table, name):
    assert stage_name(table) == name
