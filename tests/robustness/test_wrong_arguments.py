"""Values of wrong types that a program passes: each is refused in one message, wherever it is passed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

import robustok
from robustok_core import Recipe, Registry, RobustokError
from robustok_core.kinds import KINDS

WRONG: list[Any] = [
    None,
    "text",
    "x" * 100_000,
    "\0",
    5,
    -1,
    2.5,
    float("nan"),
    10**30,
    True,
    b"x",
    [],
    [{"use": "vq"}],
    {},
    {5: 5},
    {"use": 5},
    np.int64(4),
    np.array([1, 2]),
    torch.tensor(3),
    Path("x"),
    object(),
    int,
]


def refusals(call: Any, values: list[Any]) -> list[str]:
    """The messages with which a function refuses values; any other exception fails the test."""
    found = []
    for value in values:
        try:
            call(value)
        except RobustokError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_every_component_takes_a_value_or_refuses_it_by_its_key(registry: Registry, kind: str) -> None:
    for entry in registry.entries(kind):
        for option in attrs.fields(entry.factory.Config):

            def build(value: Any, name: str = entry.name, key: str = option.name) -> None:
                registry.spec(kind, {"use": name, key: value})

            said = refusals(build, WRONG)
            assert said, f"{entry.name}.{option.name} takes everything"
            assert not [text for text in said if not text.startswith(kind) or len(text) > 3000]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_table_is_refused(registry: Registry, kind: str) -> None:
    assert len(refusals(lambda value: registry.build(kind, value), WRONG)) == len(WRONG)
    assert len(refusals(lambda value: registry.spec(kind, {"use": value}), WRONG)) == len(WRONG)


def test_what_is_no_kind_is_refused(registry: Registry) -> None:
    assert len(refusals(lambda value: registry.build(value, {"use": "vq"}), WRONG)) == len(WRONG)


@pytest.mark.parametrize("load", [robustok.from_pretrained, robustok.load_tokenizer, robustok.load_generator])
def test_what_is_no_place_is_refused(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(refusals(load, WRONG)) == len(WRONG)


def test_what_is_no_recipe_table_or_registry_is_refused() -> None:
    assert len(refusals(Recipe.from_table, WRONG)) == len([value for value in WRONG if not isinstance(value, dict)])
    recipe = Recipe.load("tokenizer")
    assert len(refusals(recipe.resolve, WRONG[1:])) == len(WRONG) - 1
    assert recipe.resolve(None).table() == recipe.resolve(robustok.load_registry()).table()


def test_metrics_that_are_no_table_are_not_taken_for_none(registry: Registry) -> None:
    for nothing in (False, 0, "", []):
        with pytest.raises(RobustokError, match="expected a table of named metric tables"):
            registry.spec("stage", {"use": "evaluate_tokenizer", "metrics": nothing})
