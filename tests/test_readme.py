"""What the README says can be done: every command, recipe fragment, name and link in it."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomli
import torch
from PIL import Image

from project import CODEBOOK_SIZE, TO_SAMPLES, Project
from robustok_core import Draws, Guidance, Keep, Latents, LatentSpace, Recipe, load_registry
from robustok_core.cli import main
from robustok_core.kinds import KINDS
from robustok_core.runs.checking import check
from snippets import assert_options_exist, assert_understood, blocks, commands

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


COMMANDS = [arguments for block in blocks(README, "bash") for arguments in commands(block)]


def test_commands_are_found_in_every_form():
    shell = "a && .venv/bin/robustok run r --fresh\n"
    shell += "accelerate launch -n 8 \\\n  -m robustok_core check r # why\npip robustok\n"
    assert commands(shell) == [["run", "r", "--fresh"], ["check", "r"]]
    assert {arguments[0] for arguments in COMMANDS} >= {"run", "check", "plugins"}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_has_the_arguments_that_it_is_shown_with(arguments, registry, capsys):
    assert_understood(arguments, registry)
    if arguments[0] == "plugins":
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0, capsys.readouterr().err


def test_options_in_the_text_exist():
    assert_options_exist(README)


@pytest.mark.parametrize("fragment", blocks(README, "toml"))
def test_a_fragment_of_a_recipe_makes_a_whole_recipe_with_data(fragment, registry, tmp_path):
    (tmp_path / "r.toml").write_text(fragment, encoding="utf-8")
    table = tomli.loads(fragment)
    missing = {} if "data" in table else {"data": {"use": "fashion_mnist"}}
    check(Recipe.load(tmp_path / "r.toml", overrides=missing), registry=registry)


@pytest.mark.parametrize("program", blocks(README, "python"))
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
    (program,) = (block for block in blocks(README, "python") if "class ByPlace" in block)
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
