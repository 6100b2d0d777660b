"""Every recipe is read, checked, or refused with messages that name file and line: never with a traceback."""

from __future__ import annotations

import copy
import datetime
import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from project import ADVERSARIAL, CONTINUOUS, FLOW, POST_TRAINING, TO_SAMPLES, recipe_of
from robustok_core import ProblemsError, Recipe, RobustokError, load_registry
from robustok_core.recipe.source import bundled_recipes
from robustok_core.recipe.structurer import Structurer, nested_config
from robustok_core.runs.checking import check
from tried import inputs, trying

REGISTRY = load_registry()


def bases() -> list[dict[str, Any]]:
    """Recipes of all kinds: bundled ones whose networks are small, and others that pass all checks."""
    files = {name: file for name, file in bundled_recipes().items() if "/" not in name}
    bundled = [tomli.loads(file.read_text(encoding="utf-8")) for file in files.values()]
    adversarial = recipe_of(["train_tokenizer", "evaluate_tokenizer"])
    adversarial["stage"][0]["losses"] = ADVERSARIAL
    flow = recipe_of(TO_SAMPLES, tokenizer=CONTINUOUS["tokenizer"], generator=FLOW, perturbation=None)
    return [*bundled, recipe_of([*TO_SAMPLES, *POST_TRAINING]), flow, adversarial]


BASES = bases()

#: Values that some recipe somewhere holds by mistake.
VALUES: list[Any] = [
    *(0, -1, 1, 7, 2**15, 2**31 - 1, 2**31, 2**63, -(2**63), 10**400, 16**5000),
    *(0.0, -0.5, 0.5, 1e-300, 1e38, 1e300, float("inf"), float("-inf"), float("nan"), True, False),
    *("", "a", "\0x", "é", "\x1b[31m", "../../x", "x" * 300, "x" * 20000, "\udcff", "/root/x"),
    *([], {}, [[]], [{}], [1, "a"], [0.5] * 2000, {"use": 5}, {"use": "vq"}, {"use": "none"}, {"a": {"a": 1}}),
    *(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.time(1, 2)),
]
NAMES = ["", "x", "use", "name", "a.b", "é", "\x1b", "stage", "extends", "run"]


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *paths(item, (*path, key)))]


def holder(table: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        table = table[key]
    return table


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A recipe with one to three mistakes: other values, missing keys, other names, other shapes."""
    table = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        if not (places := paths(table)):
            break
        path = draw(st.sampled_from(places))
        held, key = holder(table, path), path[-1]
        change = draw(st.sampled_from(["value", "value", "value", "delete", "rename", "wrap"]))
        if change == "value":
            held[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif change == "delete":
            del held[key]
        elif change == "rename" and isinstance(held, dict):
            held[draw(st.sampled_from(NAMES))] = held.pop(key)
        else:
            held[key] = draw(st.sampled_from([[held[key]], {"a": held[key]}, [held[key]] * 2]))
    return table


def refusals(load: Any) -> list[RobustokError]:
    """The problems of a recipe: none if it passes all checks."""
    try:
        check(load(), registry=REGISTRY)
    except ProblemsError as error:
        return list(error.problems)
    except RobustokError as error:
        return [error]
    return []


@pytest.mark.soak
@inputs(100)
@given(mutated())
def test_a_mutated_recipe_is_good_or_each_mistake_has_a_message_with_its_place(tmp_path_factory, table):
    with trying("a recipe has mistakes", pickle.dumps(table)):
        check_each_message(tmp_path_factory.getbasetemp() / "mutated.toml", table)


def check_each_message(file: Path, table: dict[str, Any]) -> None:
    try:
        file.write_text(tomli_w.dumps(table), encoding="utf-8")
    except ValueError:  # TOML cannot hold it, but a program can
        problems = refusals(lambda: Recipe.from_table(table))
    else:
        problems = refusals(lambda: Recipe.load(file))
        assert all(problem.where for problem in problems), problems
    for problem in problems:
        assert problem.what
        assert len(str(problem)) < 2000


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "a recipe needs at least one [[stage]]"),
        (b"\xef\xbb\xbf[run]\nname = 1\n", "run.name: expected str, found int 1"),
        (b"[run]\nname = '\xff'\n", "r.toml:2: the recipe is not valid UTF-8"),
        (b"a = " + b"[" * 2000 + b"]" * 2000, "nested"),
        (b"a = " + b"{a = " * 500 + b"1" + b"}" * 500, "nested"),
        (b"a." * 2000 + b"a = 1", "nested"),
        (b"[run]\nseed = " + b"9" * 5000, "too many digits"),
        (b"[run]\nseed = 0x" + b"f" * 5000, "run.seed: the number is too large"),
        (b"[run]\nseed = " + b"9" * 4000, "run.seed: the number is too large"),
        (b"\0" * 100, "r.toml:1: not valid TOML"),
        (b"#" * 2**21, "too large to be a recipe"),
        (b"extends = 5", "r.toml:1: `extends` must be"),
        (b"\nextends = 'gone'", "r.toml:2: extends: no recipe file or bundled recipe is called 'gone'"),
        (b'extends = "' + b"x" * 5000 + b'"', "r.toml:1: extends: "),
        (b"extends = 'r.toml'", "the recipe extends itself"),
        (b"load = { tokenizer = 5 }\n", "load.tokenizer: expected a path or a table, found int 5"),
        (b"stage = 5\n", "a recipe needs at least one [[stage]]"),
        (b"stage = [5]\n", "expected a table with `use`, found int"),
        (b"run = [1]\n", "run: expected a table"),
        (b"data = 1979-05-27\n", "data: expected a table"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_file_that_is_no_recipe_is_one_message_with_its_place(tmp_path, monkeypatch, content, what):
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_bytes(content)
    messages = list(map(str, refusals(lambda: Recipe.load("r.toml"))))
    assert [message for message in messages if what in message and message.startswith("r.toml")], messages


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path):
    file = tmp_path / "r.toml"
    file.write_bytes(b"\xef\xbb\xbf" + tomli_w.dumps(recipe_of()).encode())
    assert refusals(lambda: Recipe.load(file)) == []


@pytest.mark.parametrize("name", ["", ".", "/", "\0", "x" * 5000, "a/" * 3000, "\udcff", "folder", "unreadable/r.toml"])
def test_a_name_that_no_recipe_has_is_one_message(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("unreadable").mkdir(mode=0)
    for load in (lambda: Recipe.load(name), lambda: Recipe.load("tokenizer", presets=[name])):
        (problem,) = refusals(load)
        assert len(str(problem)) < 600


def test_a_long_chain_of_recipes_is_refused(tmp_path):
    for number in range(200):
        (tmp_path / f"{number}.toml").write_text(f"extends = '{number + 1}.toml'")
    (tmp_path / "200.toml").write_text("")
    (problem,) = refusals(lambda: Recipe.load(tmp_path / "0.toml"))
    assert "recipes extend each other" in problem.what


NUMBERS = ("inf", "1e300", "nan", "-1", "0", "''", "[]", "{}", "1979-05-27")


@pytest.mark.parametrize(
    "change",
    ["", "=", "=1", "run", "run=1", "run.name", "run.name.x=1"]
    + ["stage=1", "stage.x=1", "stage.0.epochs=1", ".=1", "a..b=1"]
    + ["run.seed=" + "9" * 5000, "run.seed=0x" + "f" * 5000, "run.seed=inf", "data.train_limit=nan", "run.seed=-1"]
    + ["run.name=\0", "run.name=\udcff", "a." * 500 + "a=1", "run.name=" + "[" * 500, "x" * 9000 + "=1"]
    + ["stage.train_tokenizer.epochs=" + value for value in NUMBERS]
    + ["run.trackers=" + json.dumps(["tensorboard"] * 2000)]
    + ['tokenizer.quantizer={ use = "vq", codebook_size = 100000000000 }'],
    ids=lambda change: change[:30],
)
def test_a_change_that_cannot_be_made_is_refused_in_short_messages(change):
    problems = refusals(lambda: Recipe.load("tokenizer", overrides=[change]))
    assert problems
    assert all(len(str(problem)) < 2000 for problem in problems)


@pytest.mark.parametrize(
    "preset", ["stage = 5", "stage = [5]", "tokenizer = 5", "stage = 'x'", "run = []", "[[stage]]"]
)
def test_a_preset_of_another_shape_is_refused_or_changes_nothing_else(tmp_path, preset):
    (tmp_path / "p.toml").write_text(preset)
    refusals(lambda: Recipe.load("tokenizer", presets=[str(tmp_path / "p.toml")]))


# --- options of every component ---------------------------------------------------------------


def numeric(cls: type, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """The options of a configuration that hold numbers or lists of them, also in nested tables."""
    found = []
    for option in attrs.fields(attrs.resolve_types(cls)):
        nested = None if option.metadata.get("kind") else nested_config(option.type)
        if nested is not None:
            found += numeric(nested, (*path, option.name))
        elif "int" in str(option.type) or "float" in str(option.type):
            found.append(((*path, option.name), option))
    return found


def configurations() -> list[Any]:
    classes = [(f"{entry.kind} {entry.name}", entry.factory.Config) for entry in REGISTRY.entries()]
    classes += [(f"sampling {entry.name}", entry.factory.Sampling) for entry in REGISTRY.entries("generator")]
    return [
        pytest.param(cls, path, option, id=f"{name} {'.'.join(path)}")
        for name, cls in classes
        for path, option in numeric(cls)
    ]


@pytest.mark.parametrize(("cls", "path", "option"), configurations())
def test_no_number_of_any_component_can_be_endless_or_larger_than_a_machine(cls, path, option):
    for value in (float("inf"), float("-inf"), float("nan"), 1e300, -1e300, 2**62, -(2**62), 10**400, 16**5000):
        raw = [value, value] if "tuple" in str(option.type) or "list" in str(option.type) else value
        structurer = Structurer(REGISTRY.find)
        table: dict[str, Any] = {path[-1]: raw}
        for key in reversed(path[:-1]):
            table = {key: table}
        assert structurer.config(cls, table, ()) is None
        assert [problem for problem in structurer.problems if problem.path == path], value


LARGE = """
import resource, sys, tomli, torch
from robustok_core import Recipe, RobustokError, load_registry
from robustok_core.runs.checking import check
registry = load_registry()
check(Recipe.from_table(tomli.loads(open("good.toml").read())), registry=registry)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
for number in range(int(sys.argv[1])):
    try:
        check(Recipe.load(f"{number}.toml"), registry=registry)
    except RobustokError:
        pass
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(round(grown))
"""

#: The largest sizes that validators let through, and combinations whose product is larger than any machine.
SIZES: list[dict[str, Any]] = [
    {"quantizer": {"use": "fsq", "levels": [4] * 16}},
    {"quantizer": {"use": "fsq", "levels": [64] * 3}},
    {"quantizer": {"use": "vq", "codebook_size": 2**24, "width": 65536}},
    {"quantizer": {"use": "vq", "codebook_size": 2**24, "width": 64}},
    {"quantizer": {"use": "lfq", "width": 18}},
    {"quantizer": {"use": "sim_vq", "codebook_size": 2**24, "width": 65536}},
    {"quantizer": {"use": "residual_vq", "num_levels": 2, "level_size": 2**24, "width": 65536}},
    {"channels": 65536, "z_channels": 65536},
    {"channels": 65536, "channel_multipliers": [256] * 3},
    {"image_size": 8192},
    {"stem_patch": 8192},
]


def test_no_size_takes_memory_in_check(tmp_path):
    good = recipe_of(["train_tokenizer", "tokenize", "train_generator", "sample", "make_pairs", "post_train"])
    (tmp_path / "good.toml").write_text(tomli_w.dumps(good))
    tables = [copy.deepcopy(good) for _ in SIZES]
    for table, sizes in zip(tables, SIZES, strict=True):
        table["tokenizer"] |= sizes
    for stage, change in (
        ("train_tokenizer", {"batch_size": 2**31 - 1}),
        ("sample", {"num_samples": 2**31 - 1}),
        ("make_pairs", {"num_pairs": 2**31 - 1}),
        ("train_generator", {"epochs": 1e6, "workers": 1000}),
    ):
        table = copy.deepcopy(good)
        next(held for held in table["stage"] if held["use"] == stage).update(change)
        tables.append(table)
    for name in ("maskgit", "rar", "llamagen_gpt"):
        tables.append({**copy.deepcopy(good), "generator": {"use": name, "width": 65536, "depth": 64, "num_heads": 1}})
    for number, table in enumerate(tables):
        (tmp_path / f"{number}.toml").write_text(tomli_w.dumps(table))
    command = [sys.executable, "-c", textwrap.dedent(LARGE), str(len(tables))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) < 500, "MiB"
