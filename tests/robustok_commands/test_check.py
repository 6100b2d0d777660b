"""`robustok check` as a user meets it."""

from __future__ import annotations

import tomli


def test_check_continues_with_the_next_recipe(command, recipe_file):
    code, output, errors = command("check", "missing.toml", recipe_file())
    assert code == 2
    assert output.endswith("r.toml: good\n")
    assert errors.count("error: ") == 1


def test_a_run_folder_is_checked_with_the_recipe_in_it(command, trained, refused, tmp_path):
    assert command("check", trained.folder)[1].endswith(f"{trained.folder}: good\n")
    output = command("check", trained.folder, "--show", "--set", "perturbation.delta=2")[1]
    assert tomli.loads(output)["run"]["name"] == trained.folder.name
    assert "or the folder of a run" in refused("check", tmp_path)


def test_all_wrong_changes_are_named_at_once(command, recipe_file):
    changes = ("--set", "stage.nowhere.x=1", "--set", "y", "--set", "run.name=[", "--set", "run.seed=1")
    code, _, output = command("check", recipe_file(), *changes)
    assert code == 2
    assert output.count("error: ") == 3
    assert "no stage is called 'nowhere'" in output
    assert "--set needs KEY=VALUE, found 'y'" in output
    assert "'[' is not valid TOML" in output


def test_check_show_prints_a_recipe_with_every_default(command, recipe_file):
    code, output, _ = command("check", recipe_file(), "--show", "--set", "perturbation.delta=2")
    assert code == 0
    shown = tomli.loads(output)
    assert shown["perturbation"]["delta"] == 2
    assert shown["stage"][0]["optimizer"]["betas"] == [0.9, 0.95]
