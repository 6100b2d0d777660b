"""Tables that no stage reads: what is set in them on purpose is refused, the rest is said."""

from __future__ import annotations

import pytest
import tomli_w

from project import TABLES, recipe_of
from robustok_core import Recipe, RobustokError
from robustok_core.runs.checking import check

LEFT_OVER = {"generator": TABLES["generator"]}


@pytest.fixture
def changed(tmp_path):
    """A recipe that trains a tokenizer, or measures a loaded one, with options set and tables left over."""

    def changed(
        *overrides: str, stage: str = "train_tokenizer", load: dict[str, str] | None = None, **tables
    ) -> Recipe:
        (tmp_path / "r.toml").write_text(tomli_w.dumps(tables | recipe_of([stage], load=load)))
        return Recipe.load(tmp_path / "r.toml", overrides=overrides)

    return changed


@pytest.mark.parametrize(
    "overrides", [["generator.depth=3"], ["generator.use=maskgit", "generator.width=16", "generator.depth=1"]]
)
def test_what_is_set_for_a_table_that_no_stage_reads_is_refused(changed, registry, overrides):
    with pytest.raises(RobustokError) as caught:
        changed(*overrides, **LEFT_OVER).resolve(registry)
    for problem, change in zip(caught.value.problems, overrides, strict=True):
        key = change.partition("=")[0]
        assert (problem.where, problem.what) == (f"--set {key}", f"{key}: no stage of this recipe reads [generator]")
        assert problem.hint == "what reads it: train_generator"


def test_what_is_set_for_a_component_that_is_loaded_is_refused(changed, registry):
    with pytest.raises(RobustokError, match=r"tokenizer.channels: no stage .*\(the tokenizer is that of \[load\]\)"):
        changed(
            "tokenizer.channels=16", stage="evaluate_tokenizer", load={"tokenizer": "r"}, tokenizer=TABLES["tokenizer"]
        ).resolve(registry)


@pytest.mark.parametrize("change", ["data.train_limit=20", "perturbation.beta=0.5", "run.seed=4"])
def test_what_is_set_for_the_data_or_for_a_table_that_a_stage_may_read_is_taken(changed, registry, change):
    assert changed(change, **LEFT_OVER).resolve(registry)


def test_a_table_that_is_left_over_is_said_with_its_line(changed, registry, tmp_path):
    lines: list[str] = []
    check(changed(**LEFT_OVER), registry=registry, announce=lines.append)
    assert lines == [f"{tmp_path / 'r.toml'}:1: no stage of this recipe reads [generator]"]
    lines.clear()
    check(changed(), registry=registry, announce=lines.append)
    assert lines == []
