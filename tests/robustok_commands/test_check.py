"""`robustok check` as a user meets it."""

from __future__ import annotations

import tomli


def test_check_continues_with_the_next_recipe(command, recipe_file):
    code, output, errors = command("check", "missing.toml", recipe_file())
    assert code == 2
    assert output.endswith("r.toml: good\n")
    assert errors.count("error: ") == 1


def test_check_show_prints_a_recipe_with_every_default(command, recipe_file):
    code, output, _ = command("check", recipe_file(), "--show", "--set", "perturbation.delta=2")
    assert code == 0
    shown = tomli.loads(output)
    assert shown["perturbation"]["delta"] == 2
    assert shown["stage"][0]["optimizer"]["betas"] == [0.9, 0.95]
