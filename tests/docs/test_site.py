"""The built site: what is public is on its pages, and nothing on them comes from the network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

import robustok
import robustok_training
from robustok_core.cli import cli
from robustok_core.kinds import KINDS
from robustok_core.recipe import hookspecs
from robustok_core.recipe.options import Option, options_of
from robustok_core.recipe.source import bundled_recipes

pytest.importorskip("furo", reason="the documentation is not built here: pip install robustok[docs]")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `tox -e docs` builds it, but without running the tutorial."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("auto_tutorial"))
    shutil.copytree(ROOT / "examples", folder / "examples")
    for page in ROOT.glob("*.md"):
        shutil.copy(page, folder)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-D", "plot_gallery=0", "docs", "site"]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "site"


def anchors(site: Path, pages: str) -> set[str]:
    """What links to these pages can point at."""
    return {anchor for page in site.glob(pages) for anchor in re.findall(r'\bid="([^"]+)"', page.read_text())}


def test_every_public_name_is_documented(site):
    names = [f"robustok.{name}" for name in robustok.__all__ if name != "__version__"]
    names += [f"robustok_training.{name}" for name in robustok_training.__all__]
    assert sorted({*names, "robustok.testing.check_component"} - anchors(site, "reference/python.html")) == []


def test_every_hook_is_documented(site):
    hooks = {
        f"{hookspecs.__name__}.{name}" for name, value in vars(hookspecs).items() if hasattr(value, "robustok_spec")
    }
    assert sorted(hooks - anchors(site, "reference/hooks.html")) == []


def paths(above: str, options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        yield f"{above}-{option.name}"
        yield from paths(f"{above}-{option.name}", option.nested)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_every_component_is_documented(kind, registry, site):
    wanted: set[str] = set()
    for entry in registry.entries(kind):
        if entry.plugin.startswith("robustok_"):  # those that this environment has besides may come and go
            wanted |= {f"{kind}-{entry.name}", *paths(f"{kind}-{entry.name}", options_of(entry.factory.Config))}
    assert sorted(wanted - anchors(site, f"reference/kinds/{kind}.html")) == []


def options_of_commands(command: click.Command, path: str) -> Iterator[str]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from options_of_commands(inner, f"{path}-{name}")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield f"cmdoption-{path}-{parameter.opts[0].lstrip('-')}"


@pytest.mark.parametrize("name", cli.list_commands(None))
def test_every_option_of_every_command_is_documented(name, site):
    wanted = {f"robustok-{name}", *options_of_commands(cli.get_command(None, name), f"robustok-{name}")}
    assert sorted(wanted - anchors(site, "reference/commands.html")) == []


def test_every_bundled_recipe_is_documented(site):
    wanted = {f"recipe-{name.replace('/', '-')}" for name in bundled_recipes()}
    assert sorted(wanted - anchors(site, "reference/*.html")) == []


def test_no_page_loads_anything_from_the_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="(https?:)?//', page.read_text())
        assert loaded == [], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style.name
