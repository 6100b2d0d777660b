"""What pages of documentation show: fenced blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from robustok_core import Recipe, Registry
from robustok_core.cli import cli
from robustok_core.recipe.source import bundled_recipes, parse_override
from robustok_core.runs.checking import check

ROOT = Path(__file__).resolve().parents[2]
#: Data sets that come with the package.
EMBEDDED = ("fashion_mnist", "fluent_emoji")
#: Programs of the repository that have options of their own.
SCRIPTS = [file for folder in ("benchmarks", "studies", "tests/soak") for file in (ROOT / folder).glob("*.py")]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def indented(page: str) -> list[str]:
    """The blocks of a page that are set apart by four spaces."""
    found = re.findall(r"(?:^ {4}\S.*\n)+", page, flags=re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in found]


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


def parsed(arguments: Sequence[str]) -> click.Context:
    """A command with its arguments and options, as click reads them; a usage error where they do not exist."""
    command, rest = cli.get_command(None, arguments[0]), list(arguments[1:])
    assert command is not None, f"no command is called {arguments[0]!r}"
    if isinstance(command, click.Group) and rest:
        command, rest = command.commands[rest[0]], rest[1:]
    return command.make_context(arguments[0], rest)


def all_options() -> set[str]:
    """The options of all commands: "--set"."""
    waiting = [cli.get_command(None, name) for name in cli.list_commands(None)]
    found = set()
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        found |= {option for parameter in command.params for option in parameter.opts}
    return found


def assert_understood(arguments: Sequence[str], registry: Registry) -> None:
    """Fails unless a command takes these arguments, and the recipes and the importer that they name exist.

    A recipe whose data are here is checked as a whole, with its changes.
    """
    options: Mapping[str, Any] = parsed(arguments).params
    for name in options.get("recipes", (options["recipe"],) if "recipe" in options else ()):
        if Path(name).is_dir():
            continue  # the folder of a run
        changes = dict(parse_override(change) for change in options["changes"])
        resolved = Recipe.load(name, overrides=changes, presets=options["presets"]).resolve(registry)
        data = resolved.tables["data"]
        if data.name in EMBEDDED or Path(getattr(data.config, "path", "not here")).is_dir():
            check(resolved, registry=registry)
    if (importer := options.get("importer") or (*options.get("words", ()), None)[0]) is not None:
        assert importer in registry.names("importer")


def assert_options_exist(page: str) -> None:
    """Fails unless every option and preset in the text of a page exists: `--set`, `--preset presets/paper`."""
    known = all_options() | {
        option for script in SCRIPTS for option in re.findall(r'"(--[a-z-]+)"', script.read_text())
    }
    for code in re.findall(r"`(--[a-z][^`]*)`", page):
        assert code.split()[0] in known, code
    for preset in re.findall(r"`--preset ([a-z][^` ]+)`", page):
        assert preset in bundled_recipes(), preset
