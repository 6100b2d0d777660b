"""Study files: what they say, and every mistake in them in one pass, with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli_w

from project import recipe_of
from robustok_core import RobustokError
from robustok_core.recipe.source import bundled_studies
from robustok_study.plan import make_plan
from robustok_study.spec import read_study_file
from studies import EVALUATION


def mistakes(file, registry, **options) -> list[str]:
    """All problems that are found before anything runs."""
    with pytest.raises(RobustokError) as caught:
        make_plan(read_study_file(str(file), registry, **options), Path("runs/s"), registry)
    return [str(problem) for problem in getattr(caught.value, "problems", [caught.value])]


def test_arms_change_the_recipe_seeds_are_paired_and_the_last_table_wins(study_file, registry):
    arms = [{"name": "one"}, {"name": "two", "set": {"perturbation": {"use": "none"}, "data": {"train_limit": 40}}}]
    quick = {"seeds": [5], "set": {"data": {"train_limit": 24}, "perturbation": {"delta": 2}}}
    file = study_file(arm=arms, set={"run.precision": "no", "data": {"train_limit": 20}}, quick=quick)
    study = read_study_file(str(file), registry)
    recipes = {arm.name: arm.at(7, Path("out")).source.table for arm in study.arms}
    assert {name: recipe["run"] for name, recipe in recipes.items()} == {
        "one": {"name": "one-seed7", "seed": 7, "precision": "no", "report": False},
        "two": {"name": "two-seed7", "seed": 7, "precision": "no", "report": False},
    }
    assert [recipe["data"]["train_limit"] for recipe in recipes.values()] == [20, 40]
    assert recipes["two"]["perturbation"] == {"use": "none"}
    assert (study.name, study.base.name, list(study.seeds)) == ("s", "one", [0, 1, 2])


def test_quick_has_a_folder_seeds_and_sizes_of_its_own(study_file, registry):
    quick = {"seeds": [5], "set": {"data": {"train_limit": 24}}}
    study = read_study_file(str(study_file(quick=quick)), registry, quick=True)
    assert (study.name, list(study.seeds)) == ("s-quick", [5])
    assert [arm.recipe.source.table["data"]["train_limit"] for arm in study.arms] == [24, 24]
    assert "[quick]" in mistakes(study_file(), registry, quick=True)[0]


def test_what_is_set_in_all_arms_is_left_out_only_where_an_arm_has_no_such_table_or_stage(
    study_file, registry, tmp_path
):
    chosen = {"use": "top_delta", "delta": 2}
    arms = [{"name": "one"}, {"name": "two", "set": {"perturbation": chosen}}]
    file = study_file(arm=arms, set={"perturbation": {"beta": 0.7}})
    (tmp_path / "r.toml").write_text(tomli_w.dumps(recipe_of(["train_tokenizer", EVALUATION], perturbation=None)))
    study = read_study_file(str(file), registry)
    assert [arm.recipe.source.table.get("perturbation") for arm in study.arms] == [None, {**chosen, "beta": 0.7}]
    assert [arm.changes.get("perturbation.beta") for arm in study.arms] == [None, 0.7]


GENERATOR = {"use": "maskgit", "width": 16, "depth": 1, "num_heads": 2}


def test_what_an_arm_sets_for_a_table_that_none_of_its_stages_reads_is_refused(study_file, registry):
    arms = [{"name": "one"}, {"name": "two", "set": {"generator": GENERATOR}}]
    found = mistakes(study_file(arm=arms), registry)
    assert [re.sub(r"^.*s\.toml:\d+: ", "", each) for each in found] == [
        f"arm.1.set.generator.{key}: no stage of this arm reads [generator] "
        "(leave it out, or run a stage that reads it)"
        for key in GENERATOR
    ]


@pytest.mark.parametrize("place", ["set", "quick"])
def test_what_is_set_for_a_table_that_no_stage_of_any_arm_reads_is_refused(study_file, registry, tmp_path, place):
    changes = {"generator": {"depth": 3}}
    file = study_file(**{place: changes if place == "set" else {"set": changes}})
    recipe = recipe_of(["train_tokenizer", EVALUATION]) | {"generator": GENERATOR}
    (tmp_path / "r.toml").write_text(tomli_w.dumps(recipe))
    (found,) = mistakes(file, registry)
    assert "generator.depth: no stage of any arm reads [generator]" in found


def test_a_table_of_the_recipe_that_the_stages_of_an_arm_do_not_read_is_no_mistake(study_file, registry):
    arms = [{"name": "one"}, {"name": "two", "stages": ["evaluate_tokenizer"], "load": {"tokenizer": "one"}}]
    study = read_study_file(str(study_file(arm=arms, claim=[], set={"perturbation": {"beta": 0.7}})), registry)
    assert [arm.recipe.source.table["perturbation"]["beta"] for arm in study.arms] == [0.7, 0.7]


def test_a_change_that_another_component_of_an_arm_undoes_is_not_among_its_changes(study_file, registry):
    arms = [{"name": "one"}, {"name": "two", "set": {"perturbation": {"use": "none"}}}]
    study = read_study_file(str(study_file(arm=arms, set={"perturbation": {"beta": 0.5}})), registry)
    assert [arm.changes for arm in study.arms] == [{"perturbation.beta": 0.5}, {"perturbation.use": "none"}]


def test_what_is_set_in_all_arms_stays_where_an_arm_chooses_a_component_that_has_it_too(study_file, registry):
    """And a note says what another component does not have."""
    arms = [
        {"name": "one"},
        {"name": "two", "set": {"perturbation": {"use": "rank_law", "shares": [0.5, 0.5]}}},
        {"name": "three", "set": {"perturbation": {"use": "none"}}},
    ]
    study = read_study_file(str(study_file(arm=arms, set={"perturbation": {"beta": 0.7}})), registry)
    found = [arm.recipe.source.table["perturbation"] for arm in study.arms]
    assert [table.get("beta") for table in found] == [0.7, 0.7, None]
    assert study.arms[1].changes["perturbation.beta"] == 0.7
    assert study.notes == [
        "arm 'three' leaves out perturbation.beta of [set]: its components have no such options",
    ]


def test_what_is_set_for_a_stage_that_no_arm_runs_is_refused(study_file, registry):
    arms = [{"name": name, "stages": ["train_tokenizer"]} for name in ("one", "two")]
    file = study_file(arm=arms, claim=[], metrics=None, set={"stage": {"evaluate_tokenizer": {"limit": 7}}})
    assert "no arm has a stage 'evaluate_tokenizer'" in mistakes(file, registry)[0]


def test_an_arm_without_stages_and_a_name_that_is_too_long_for_its_runs_are_refused(study_file, registry):
    file = study_file(arm=[{"name": "one"}, {"name": "two", "stages": []}], claim=[])
    assert re.search(r"s\.toml:\d+: an arm runs at least one stage", mistakes(file, registry)[0])
    file = study_file(arm=[{"name": "n" * 95}], claim=[], seeds=[0, 1000])
    assert re.search(r"s\.toml:\d+: .*the name of an arm has at most 91 characters here", mistakes(file, registry)[0])


def test_the_recipe_beside_the_study_comes_before_one_in_the_current_folder(study_file, registry, tmp_path):
    study_file()
    (tmp_path / "sub").mkdir()
    for name in ("r.toml", "s.toml"):
        (tmp_path / "sub" / name).write_text((tmp_path / name).read_text())
    (tmp_path / "r.toml").write_text("[run]\n")
    assert len(read_study_file("sub/s.toml", registry).arms) == 2


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tokenzier.quantizer.codebook_size", "no arm has a table 'tokenzier' (did you mean 'tokenizer'?)"),
        ("dataa.train_limit", "no arm has a table 'dataa' (did you mean 'data'?)"),
        (
            "stage.train_tokeniser.epochs",
            "no arm has a stage 'train_tokeniser' (did you mean 'stage.train_tokenizer'?)",
        ),
    ],
)
@pytest.mark.parametrize("place", ["set", "quick.set"])
@pytest.mark.parametrize("quick", [False, True])
def test_a_misspelt_table_or_stage_that_is_set_in_all_arms_is_refused(place, quick, key, message, study_file, registry):
    file = study_file()
    quick_table = "[quick]\n" if place == "set" else ""
    file.write_text(f"{file.read_text()}\n{quick_table}[{place}]\n{key} = 3\n")
    found = mistakes(file, registry, quick=quick)
    line = len(file.read_text().splitlines())
    assert len(found) == 1
    assert found[0].startswith(f"s.toml:{line}: {place}.{key}: {message}")


MISTAKES = """
recipe = "r.toml"
seeds = [0, 1]
base = "noone"  # no arm is called 'noone'
seed = 3  # unknown key 'seed' (did you mean 'seeds'?)

[[arm]]
name = "one"
set.tokenizer.chanels = 3  # tokenizer.chanels: unknown key 'chanels'

[[arm]]
name = "one"  # two arms are called 'one'
set.stage.sample.num_samples = 3  # no stage is called 'sample'

[[arm]]
name = "a b"  # an arm cannot be called 'a b'
recipe = "nothing"  # no recipe file or bundled recipe is called 'nothing'
load.tokenizer = "tow"  # no arm is called 'tow'

[[claim]]
text = "x"
metric = "a+b"  # 'a+b' is not a metric
arm = "three"  # no arm is called 'three'
base = "one"
direction = "lower"
"""


def test_every_mistake_is_found_in_one_pass_with_its_line(study_file, registry):
    study_file()
    Path("s.toml").write_text(MISTAKES)
    found = mistakes("s.toml", registry)
    expected = {
        f"s.toml:{number}: ": line.partition("  # ")[2]
        for number, line in enumerate(MISTAKES.splitlines(), start=1)
        if "  # " in line
    }
    assert len(found) == len(expected)
    for where, what in expected.items():
        assert any(problem.startswith(where) and what in problem for problem in found), (where, what, found)


def test_the_name_of_a_metric_is_a_metric_of_a_claim_and_a_near_miss_names_it(study_file, registry):
    claim = {"text": "x", "metric": "PNSR", "arm": "one", "base": "two", "direction": "lower"}
    arms = [{"name": "one"}, {"name": "two"}]
    (found,) = mistakes(study_file(arm=arms, claim=[claim], metrics={"PSNR": "evaluate_tokenizer/psnr"}), registry)
    assert "'PNSR' is not a metric" in found
    assert "or the name of one in [metrics]; did you mean 'PSNR'?" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "seeds: [] is out of range"),
        ({"seeds": [0, 0]}, "seeds: [0, 0] is out of range: must be one or more different numbers"),
        ({"seeds": "0,1"}, "seeds: expected"),
        ({"arm": []}, "arm: expected tables, as in [[arm]]"),
        ({"arm": None}, "a study needs at least one [[arm]]"),
        ({"arm": [{"name": "a", "set": {"run": {"seed": 1}}}]}, "run.seed: a study sets this in each run"),
        ({"arm": [{"name": "a", "seeds": [1]}]}, "unknown key 'seeds'"),
        ({"arm": [{"name": "a", "load": {"tokenizer": "a"}}]}, "or load from itself"),
        ({"claim": [{"text": "x"}]}, "the key 'metric' is required"),
        ({"quick": 3}, "quick: expected a table"),
    ],
)
def test_one_mistake_is_one_message(changes, message, study_file, registry):
    if "claim" not in changes:
        changes = {**changes, "claim": []}
    found = mistakes(study_file(**changes), registry)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize("place", ["set", "quick"])
def test_what_a_study_sets_itself_is_refused_once_at_its_line(study_file, registry, place):
    changes = {"run.seed": 1}
    file = study_file(claim=[], **{place: changes if place == "set" else {"set": changes}})
    (found,) = mistakes(file, registry)
    line = 1 + file.read_text().splitlines().index('"run.seed" = 1')
    assert found.startswith(f"{file}:{line}: {'' if place == 'set' else 'quick.'}set.")
    assert "run.seed: a study sets this in each run" in found


def test_metrics_that_no_stage_gives_are_refused_before_anything_runs(study_file, registry):
    claim = {"text": "x", "metric": "sample/psnr", "arm": "one", "direction": "lower"}
    same = {"text": "y", "metric": "a", "arm": "one", "direction": "lower"}
    file = study_file(metrics={"a": "evaluate_tokenizer/pnsr", "b": "train_tokenizer/steps"}, claim=[claim, same])
    one, other = mistakes(file, registry)
    assert "evaluate_tokenizer/pnsr: no arm measures it (did you mean 'evaluate_tokenizer/psnr'?)" in one
    assert "sample/psnr: arm 'one' has no stage 'sample'" in other


def test_a_recipe_and_a_study_are_told_from_each_other(study_file, refused):
    file = study_file()
    assert "this is a recipe, not a study (" not in refused("study", "r.toml")
    assert "this is a study, not a recipe" in refused("run", file)
    assert "this is a recipe, not a study" in refused("study", "main_train")
    message = refused("study", "my_recipe.toml")
    assert "no study file or bundled study is called 'my_recipe.toml'\n  hint: known: " in message
    assert "did you mean 'claims'?" in refused("study", "claim")
    Path("runs").mkdir()
    assert "this is a folder, not the file of a study" in refused("study", "runs")


def test_the_documentation_lists_all_bundled_studies():
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    _, _, table = page.partition("| study | what it asks |")
    listed = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert sorted(f"study/{name}" for name in listed) == sorted(bundled_studies())


@pytest.mark.parametrize("name", sorted(bundled_studies()))
def test_bundled_studies_pass_all_checks_as_they_are_and_quick(name, registry, tmp_path):
    for quick in (False, True):
        study = read_study_file(name.removeprefix("study/"), registry, quick=quick)
        plan = make_plan(study, tmp_path, registry)
        assert len(plan.jobs) == len(study.arms) * len(study.seeds)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(bundled_studies()))
def test_bundled_studies_subtract_distances_of_equal_numbers_of_images_only(name, registry):
    """Else they run to their end, and then have no value."""
    for quick in (False, True):
        study = read_study_file(name.removeprefix("study/"), registry, quick=quick)
        both = {"evaluate_tokenizer", "evaluate_generator"}
        if any({each.partition("/")[0] for each in one.names} == both for one in study.metrics.values()):
            for arm in study.arms:
                recipe = arm.recipe.resolve(registry)
                stages = {stage.name: stage.spec.config for stage in recipe.stages}
                if not both <= stages.keys():
                    continue
                held_out = len(recipe.tables["data"].build().validation)
                counts = [min(held_out, stages[stage].limit or held_out) for stage in sorted(both)]
                assert counts == [stages["sample"].num_samples] * 2, (arm.name, quick)
