"""`robustok run --seeds`: one run for each seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustok_core.runs.files import read_json


def test_each_seed_is_a_run_of_its_own_that_resumes(command, recipe_file):
    code, output, _ = command("run", recipe_file(), "--out", "out", "--seeds", "0,2")
    assert code == 0, output
    assert {path.name: read_json(path / "run.json")["seed"] for path in Path("out").glob("tiny*")} == {
        "tiny-seed0": 0,
        "tiny-seed2": 2,
    }
    assert ["result", "seed", "0", "seed", "2"] in [line.split() for line in output.splitlines()]
    code, output, _ = command("run", recipe_file(), "--out", "out", "--seeds", "0,2")
    assert code == 0
    assert output.count("train_tokenizer: done before, unchanged") == 2


def test_a_seed_that_fails_does_not_end_the_others_and_is_named(command, recipe_file):
    Path("out/tiny-seed0").mkdir(parents=True)
    Path("out/tiny-seed0/run.json").write_text("{")
    Path("out/tiny-seed0/more").mkdir()
    code, output, errors = command("run", recipe_file(), "--out", "out", "--seeds", "0,1")
    assert code == 1
    assert errors.count("error: ") == 1
    assert "tiny-seed0" in errors
    assert "train_tokenizer/steps" in output
    assert (Path("out") / "tiny-seed1" / "results.json").is_file()


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("0,x", "--seeds: 'x' is not a seed"),
        ("", "--seeds: '' is not a seed"),
        ("1,1", "--seeds: the seed 1 stands there twice"),
        ("-1", "--seeds: '-1' is not a seed"),
        ("0,9223372036854775808", "--seeds: the seed 9223372036854775808 is too large"),
    ],
)
def test_what_is_not_a_list_of_seeds_is_refused(seeds, message, refused, recipe_file):
    assert message in refused("run", recipe_file(), f"--seeds={seeds}")


def test_a_name_that_is_too_long_for_one_seed_is_refused_before_the_first_runs(refused, recipe_file):
    name = "n" * 94
    message = refused("run", recipe_file(), "--out", "out", "--seeds", "0,1000", "--set", f"run.name={name}")
    assert "a run cannot be called" in message
    assert not Path("out").exists()


def test_seeds_and_a_seed_are_refused(refused, recipe_file):
    assert "run.seed is set" in refused("run", recipe_file(), "--seeds", "0,1", "--set", "run.seed=3")
