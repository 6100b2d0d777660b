"""Every part from which a stage's result is made is named once it differs."""

from __future__ import annotations

import attrs
import pytest

from robustok_core.runs.made_from import changes, changes_of, made_from, recorded, why_again
from robustok_core.runs.run_record import MadeFrom

CODE = {"robustok": {"version": "1", "source": "aa"}}
PARTS = MadeFrom(settings="s", data=["t", "v"], inputs={"tokenizer": "k", "latents": "l"})


def entry(parts: MadeFrom = PARTS, **more) -> dict:
    return {"state": "done", "made_from": recorded(parts), "made_with": [{"plugins": CODE}], **more}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({}, []),
        ({"settings": "other"}, ["its settings"]),
        ({"data": ["t", "other"]}, ["the validation images (files, sizes, content or labels)"]),
        ({"data": ["o", "ther"]}, ["the training and validation images (files, sizes, content or labels)"]),
        ({"data": []}, ["whether it reads images"]),
        ({"inputs": {"tokenizer": "other", "latents": "l"}}, ["the tokenizer that it reads"]),
        ({"inputs": {"tokenizer": "k"}}, ["the latents that it reads"]),
        ({"inputs": {**PARTS.inputs, "pairs": "p"}}, ["the pairs that it reads"]),
        ({"inputs": {}}, ["the tokenizer that it reads", "the latents that it reads"]),
    ],
)
def test_each_part_that_differs_is_named(now, said):
    new = attrs.evolve(PARTS, **now)
    assert changes(entry(), new, CODE) == said
    assert changes_of(entry(), entry(new)) == said


def test_other_code_is_named():
    (said,) = changes(entry(), PARTS, {"robustok": {"version": "2", "source": "aa"}})
    assert said.startswith("the code of robustok (1")


def test_the_entry_of_the_recipe_in_the_folder_is_compared_and_else_the_last():
    other, newest = attrs.evolve(PARTS, settings="o"), attrs.evolve(PARTS, inputs={})
    stages = {"tokenize-1": entry(other, finished="2001"), "tokenize-2": entry(newest, finished="2002")}
    record = {"stages": stages, "current": {"tokenize": "1"}}
    assert why_again(record, "tokenize", PARTS, CODE) == "its settings changed"
    record["current"] = {}
    assert why_again(record, "tokenize", PARTS, CODE) == (
        "the tokenizer that it reads and the latents that it reads changed"
    )


@pytest.mark.parametrize("stages", [{}, {"tokenize-1": {"state": "begun"}}, {"tokenize-1": {"state": "done"}}])
def test_nothing_is_said_of_a_stage_that_was_not_done_or_of_which_nothing_is_known(stages):
    assert why_again({"stages": stages}, "tokenize", PARTS, CODE) is None


def test_the_parts_hold_all_of_what_a_fingerprint_is_made_of():
    shape = {"options": {"epochs": 1}, "data": ("t", "v"), "inputs": {"tokenizer": "k"}}
    parts = made_from(shape, {"weights.pt": "h"})
    assert (parts.data, parts.inputs, parts.files) == (["t", "v"], {"tokenizer": "k"}, {"weights.pt": "h"})
    assert made_from(shape | {"options": {"epochs": 2}}, {}).settings != parts.settings
    assert made_from(shape | {"data": None}, {}).settings == parts.settings
