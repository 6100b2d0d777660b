"""What the README says can be done: every command, recipe fragment, name and link in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import tomli

from robustok_core import Recipe
from robustok_core.cli import cli, main
from robustok_core.interfaces import KINDS
from robustok_core.recipe_source import bundled_recipes, parse_override
from robustok_core.runner import check

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Makes the bundled recipe a matter of seconds.
TINY = {
    "data.train_limit": 128,
    "data.validation_limit": 20,
    "stage.train_tokenizer.epochs": 1,
    "stage.train_generator.epochs": 1,
    "stage.sample.num_samples": 20,
    "stage.evaluate_generator.metrics.kid.subset_size": 20,
}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def commands(shell: str) -> list[list[str]]:
    """The arguments of each `robustok` in a block, also as `-m robustok_core` behind a launcher."""
    found = []
    for line in shell.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\||;|\|", line):
            words = shlex.split(part, comments=True)
            if words and Path(words[0]).name == "robustok":
                found.append(words[1:])
            elif "robustok_core" in words:
                found.append(words[words.index("robustok_core") + 1 :])
    return found


COMMANDS = [arguments for block in blocks("bash") for arguments in commands(block)]


def parsed(arguments: list[str]) -> click.Context:
    """A command with its arguments and options, as click reads them; a usage error where they do not exist."""
    command = cli.get_command(None, arguments[0])
    return command.make_context(arguments[0], arguments[1:])


def test_commands_are_found_in_every_form():
    shell = "a && .venv/bin/robustok run r --fresh\n"
    shell += "accelerate launch -n 8 \\\n  -m robustok_core check r # why\npip robustok\n"
    assert commands(shell) == [["run", "r", "--fresh"], ["check", "r"]]
    assert {arguments[0] for arguments in COMMANDS} >= {"run", "check", "plugins"}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_has_the_arguments_that_it_is_shown_with(arguments, registry, capsys):
    options: Mapping[str, Any] = parsed(arguments).params
    for name in options.get("recipes", (options["recipe"],) if "recipe" in options else ()):
        changes = dict(parse_override(change) for change in options["changes"])
        resolved = Recipe.load(name, overrides=changes, presets=options["presets"]).resolve(registry)
        if resolved.tables["data"].name == "fashion_mnist":  # the others' files are not here
            check(resolved, registry=registry)
    if "importer" in options:
        assert options["importer"] in registry.names("importer")
    if arguments[0] == "plugins":
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0, capsys.readouterr().err


def test_options_in_the_text_exist():
    known = {
        option for name in cli.list_commands(None) for p in cli.get_command(None, name).params for option in p.opts
    }
    for code in re.findall(r"`(--[^`]+)`", README):
        assert code.split()[0] in known, code
    for preset in re.findall(r"`--preset ([^` ]+)`", README):
        assert preset in bundled_recipes()


@pytest.mark.parametrize("fragment", blocks("toml"))
def test_a_fragment_of_a_recipe_makes_a_whole_recipe_with_data(fragment, registry, tmp_path):
    (tmp_path / "r.toml").write_text(fragment, encoding="utf-8")
    table = tomli.loads(fragment)
    missing = {} if "data" in table else {"data": {"use": "fashion_mnist"}}
    check(Recipe.load(tmp_path / "r.toml", overrides=missing), registry=registry)


@pytest.mark.parametrize("program", blocks("python"))
def test_a_program_does_what_it_shows(program, monkeypatch, tmp_path, capsys):
    """As it stands, but with a bundled recipe cut to a few images."""
    load = Recipe.load

    def load_tiny(name: str, *, overrides: Mapping[str, Any] | None = None, presets: tuple[str, ...] = ()) -> Recipe:
        return load(name, overrides={**(overrides or {}), **TINY}, presets=presets)

    monkeypatch.setattr(Recipe, "load", load_tiny)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    if "print(results[" in program:
        assert float(capsys.readouterr().out) > 0


def test_the_table_of_components_names_all_there_are(registry):
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", README, flags=re.MULTILINE)
    shown = {kind: re.findall(r"`(\w+)`", names) for kind, names in rows if kind in KINDS}
    first_party = {kind: registry.names(kind) for kind in KINDS if registry.names(kind)}
    assert {kind: sorted(names) for kind, names in shown.items()} == first_party


def test_links_within_the_project_lead_somewhere():
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert [target for target in targets if target and not (ROOT / target).exists()] == []
