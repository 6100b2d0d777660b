"""The examples in the help of the commands work as they are."""

from __future__ import annotations

import re
import shlex
import shutil

import click

from readers import published_weights
from robustok_core import Recipe, load_registry
from robustok_core.cli import cli
from robustok_toolkit.weight_files import write_weights


def examples() -> list[str]:
    """All command lines in the help of all commands, in the order in which they can be run."""
    context = click.Context(cli)
    helps = [cli.get_command(context, name) for name in ("import", *cli.list_commands(context))]
    texts = [" ".join((command.help or "").split()).partition("Example")[2] for command in helps if command is not None]
    return list(dict.fromkeys(line for text in texts for line in re.findall(r"`(robustok [^`]+)`", text)))


def test_every_example_in_the_help_works(command, trained, tmp_path):
    write_weights(tmp_path / "main-train.pt", published_weights("robustok_tokenizer_a"))
    for name in ("rar", "main_train", "baseline"):
        shutil.copytree(trained.folder, tmp_path / "runs" / name)
    lines = examples()
    assert len(lines) >= 5
    for line in lines:
        name, *arguments = shlex.split(line)[1:]
        if name == "fetch":  # would download gigabytes
            assert Recipe.load(*arguments).resolve(load_registry()).stages
            continue
        if name == "run":  # for minutes; `check` reads the same arguments
            name = "check"
        if name == "study":
            arguments.append("--dry-run")
        if name == "tune-guidance":  # for minutes
            arguments += ["--samples", "20", "--confirm", "20", "--limit", "20", "--scale", "1", "--scale", "2"]
        if name == "calibrate":
            arguments += ["--limit", "20"]
        code, _, errors = command(name, *arguments)
        assert code == 0, f"{line}: {errors}"
