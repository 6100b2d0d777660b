"""What differs between two recipes, in words."""

from __future__ import annotations

import pytest

from robustok_core.runs.files import write_json
from robustok_core.runs.history import changes_between, changes_beyond_seed, described, past_recipes

OLD = """
[tokenizer]
use = "a"
sizes = [1, 2]
[perturbation]
beta = 0.1
[[stage]]
use = "train"
epochs = 1
[[stage]]
name = "again"
use = "train"
"""


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (("0.1", "0.5"), ["perturbation.beta: 0.1 -> 0.5"]),
        (("[1, 2]", "[1, 3]"), ["tokenizer.sizes: [1, 2] -> [1, 3]"]),
        (("epochs = 1", "epochs = 2"), ["stage.train.epochs: 1 -> 2"]),
        (("epochs = 1", ""), ["stage.train.epochs: 1 -> not set"]),
        (("[perturbation]\nbeta = 0.1", ""), ["perturbation: removed"]),
        (('name = "again"', 'name = "other"'), ["stage.again: removed", "stage.other: added"]),
        (("beta", "beta ="), ["one of them is not valid TOML"]),
        (("", ""), []),
    ],
)
def test_each_key_that_changed_is_named(change, lines):
    assert changes_between(OLD, OLD.replace(*change)) == lines


def test_a_changed_order_of_stages_is_named():
    first, second = '[[stage]]\nuse = "a"\n', '[[stage]]\nuse = "b"\n'
    assert changes_between(first + second, second + first) == ["the order of its stages"]


def test_ten_changes_are_listed_and_the_others_counted():
    text = described([f"key{number}: 0 -> 1" for number in range(13)])
    assert text.count("key") == 10
    assert text.endswith(" and 3 more")


def test_the_history_of_an_earlier_version_is_read_from_its_files(tmp_path):
    write_json(tmp_path / "run.json", {"stages": {}, "current": {}})
    (tmp_path / "recipe.toml").write_text(OLD)
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "recipe-1.toml").write_text(OLD.replace("0.1", "0.2"))
    (tmp_path / "history" / "results-2.json").write_text("{}")
    one, two = past_recipes(tmp_path)
    assert one.changes == ["perturbation.beta: 0.2 -> 0.1"]
    assert two.changes == ["not the recipe, but the data, an input or the code"]
    assert one.artifacts is None
    assert (one.results, two.recipe) == (None, None)
    assert two.results == tmp_path / "history" / "results-2.json"


LOADED = """
[run]
name = "{name}"
seed = {seed}
report = {report}
[load.tokenizer]
path = "{place}"
[perturbation]
beta = {beta}
"""


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"seed": 1, "name": "b", "report": "false"}, True),
        ({"seed": 1, "place": "runs/t-seed1"}, True),
        ({"place": "runs/t_seed_1/artifacts/tokenizer-0123456789abcdef"}, False),
        ({"place": "runs/u-seed1"}, False),
        ({"place": "elsewhere/t-seed1"}, False),
        ({"beta": 0.5}, False),
    ],
)
def test_runs_are_repetitions_if_their_recipes_differ_in_seeds_only(changes, same):
    table = {"name": "a", "seed": 0, "report": "true", "place": "runs/t-seed0", "beta": 0.1}
    one, other = (LOADED.format(**table), LOADED.format(**{**table, **changes}))
    assert (changes_beyond_seed(one, other) == []) is same
    assert (changes_beyond_seed(other, one) == []) is same


def test_artifacts_of_runs_that_differ_in_their_seeds_are_repetitions():
    table = {"name": "a", "seed": 0, "report": "true", "beta": 0.1}
    places = [f"runs/t-seed{seed}/artifacts/tokenizer-{str(seed) * 16}" for seed in range(2)]
    assert changes_beyond_seed(*(LOADED.format(**table, place=place) for place in places)) == []
    assert changes_beyond_seed("[", "[") == ["one of them is not valid TOML"]
