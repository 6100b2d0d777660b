"""The recipe of the tokenizer alone."""

from __future__ import annotations

from robustok_core import Recipe


def test_main_train_begins_with_it_and_changes_nothing_of_it(registry):
    alone, whole = (Recipe.load(name).resolve(registry) for name in ("tokenizer", "main_train"))
    for table in ("data", "tokenizer", "perturbation"):
        assert alone.tables[table].table() == whole.tables[table].table()
    assert set(alone.tables) == {"data", "tokenizer", "perturbation"}
    stages = [(stage.name, stage.spec.table()) for stage in alone.stages]
    assert [name for name, _ in stages] == ["train_tokenizer", "evaluate_tokenizer"]
    assert [(stage.name, stage.spec.table()) for stage in whole.stages][:2] == stages
