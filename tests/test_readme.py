"""What the README says can be done: every command, recipe fragment, name and link in it."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import tomli
import torch
from PIL import Image

from project import CODEBOOK_SIZE, TO_SAMPLES, Project
from robustok_core import Draws, Guidance, Keep, Latents, LatentSpace, Recipe, load_registry
from robustok_core.cli import cli, main
from robustok_core.kinds import KINDS
from robustok_core.recipe.source import bundled_recipes, parse_override
from robustok_core.runs.checking import check

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
        if resolved.tables["data"].name in ("fashion_mnist", "fluent_emoji"):  # the others' files are not here
            check(resolved, registry=registry)
    if (importer := options.get("importer") or (*options.get("words", ()), None)[0]) is not None:
        assert importer in registry.names("importer")
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
def test_a_program_does_what_it_shows(program, trained, monkeypatch, tmp_path, capsys):
    """As it stands, but with a bundled recipe cut to a few images, and a tiny run for runs/main_train."""
    shutil.copytree(trained.folder, tmp_path / "runs" / "main_train")
    load = Recipe.load

    def load_tiny(name: str, *, overrides: Mapping[str, Any] | None = None, presets: tuple[str, ...] = ()) -> Recipe:
        return load(name, overrides={**(overrides or {}), **TINY}, presets=presets)

    monkeypatch.setattr(Recipe, "load", load_tiny)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    for picture in re.findall(r'save\("(.+)"\)', program):
        with Image.open(picture) as opened:
            assert opened.size == (32, 32)
    if "print(results[" in program:
        assert float(capsys.readouterr().out) > 0


def test_the_generator_of_its_example_runs_in_a_recipe_and_samples_what_it_learned(tmp_path):
    (program,) = (block for block in blocks("python") if "class ByPlace" in block)
    example = ModuleType("example")
    exec(compile(program, "README.md", "exec"), vars(example))
    registry = load_registry()
    assert registry.add_plugin(example, "mine").error is None
    shown = re.search(r"`robustok run main_train (--set generator.use=by_place [^`]+)`", README)
    check(Recipe.load("main_train", overrides=shown[1].split()[1::2]), registry=registry)
    project = Project(tmp_path, TO_SAMPLES, generator={"use": "by_place"}, sample={"sampling": {}})
    project.stage("train_generator")["optimizer"] = {"learning_rate": 0.1}
    results = project.run(registry=registry).results
    as_often = math.log(CODEBOOK_SIZE)
    assert results["train_generator/validation_loss"].value < as_often, "better than each code as often as another"

    space = LatentSpace(kind="discrete", num_tokens=3, width=2, codebook_size=4, grid=None)
    generator = registry.build("generator", {"use": "by_place"}, space, 2)
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    generator.logits.data[1, 2] = shares.log()
    labels, draws = torch.ones(4000, dtype=torch.int64), Draws.for_rows(0, 4000)
    codes = generator.sample(labels, draws, guidance=Guidance()).codes
    assert codes.shape == (4000, 3)
    torch.testing.assert_close(codes[:, 2].bincount(minlength=4) / 4000, shares, atol=0.03, rtol=0)
    real = Latents(codes=torch.full((4000, 3), 3))
    keep = Keep(latents=real, sigma=1.0)
    assert torch.equal(generator.sample(labels, draws, guidance=Guidance(), keep=keep).codes, real.codes)


def test_the_table_of_components_names_all_there_are(registry):
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", README, flags=re.MULTILINE)
    shown = {kind: re.findall(r"`(\w+)`", names) for kind, names in rows if kind in KINDS}
    first_party = {kind: registry.names(kind) for kind in KINDS if registry.names(kind)}
    assert {kind: sorted(names) for kind, names in shown.items()} == first_party


def test_links_within_the_project_lead_somewhere():
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert [target for target in targets if target and not (ROOT / target).exists()] == []
