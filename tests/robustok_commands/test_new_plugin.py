"""`robustok new plugin`: what it writes runs as it is."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli
from safetensors.torch import save_file

from robustok.testing import check_component
from robustok_commands.new_plugin import new
from robustok_core import Recipe, RobustokError, load_registry, run
from robustok_core.kinds import KINDS
from robustok_core.recipe.registry import Registry

REST = set(KINDS) - {"importer"}


@pytest.fixture
def write(monkeypatch, tmp_path: Path) -> Callable[..., Path]:
    """Runs the command in an empty folder; returns the package's."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, *kinds: str) -> Path:
        arguments = [part for kind in kinds for part in ("--kind", kind)]
        new.main(["plugin", name, *arguments], standalone_mode=False)
        return tmp_path / name

    return write


@pytest.fixture
def registered(monkeypatch) -> Iterator[Callable[[Path], Registry]]:
    """A registry with a written package, imported from its folder."""

    def registered(folder: Path) -> Registry:
        monkeypatch.syspath_prepend(str(folder))
        registry = load_registry()
        project = tomli.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        ((name, module),) = project["entry-points"]["robustok"].items()
        assert registry.add_plugin(importlib.import_module(module), name).error is None
        return registry

    yield registered
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("fog")]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", sorted(REST))
def test_a_component_of_each_kind_does_what_its_kind_promises(kind, write, registered):
    folder = write(f"fog_{kind}", kind)
    registry = registered(folder)
    brought = [(entry.kind, entry.name) for entry in registry.entries() if entry.plugin == folder.name]
    assert brought == [(kind, folder.name)]
    check_component(kind, folder.name, registry=registry)


def test_an_importer_brings_the_tokenizer_that_it_reads(write, registered, tmp_path):
    registry = registered(write("fog_in", "importer"))
    tokenizer = registry.build("tokenizer", {"use": "fog_in"})
    save_file(registry.build("importer", {"use": "fog_in"}).export(tokenizer), tmp_path / "theirs.safetensors")
    check_component("importer", "fog_in", registry=registry, file=tmp_path / "theirs.safetensors")


def test_the_default_kind_is_perturbation(write):
    assert (write("fog") / "fog" / "perturbation.py").is_file()


@pytest.mark.parametrize(
    ("name", "kinds", "number"),
    [("fog", (), 1), ("fog", ("importer", "generator"), 4), ("nearest", (), 1), ("patches", ("importer",), 3)],
    ids=["one kind", "several", "the name of an example", "the name of one of its examples"],
)
def test_its_own_tests_pass_before_it_is_installed(name, kinds, number, write):
    folder = write(name, *kinds)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{number} passed" in done.stdout


@pytest.mark.parametrize("kinds", [("perturbation",), tuple(sorted(REST))], ids=["one kind", "all"])
def test_its_recipe_runs_and_measures_with_its_components(kinds, write, registered, tmp_path):
    folder = write("fog", *kinds)
    recipe = Recipe.load(str(folder / "recipe.toml"))
    results = run(recipe, registry=registered(folder), out=tmp_path / "runs")
    assert results["evaluate_tokenizer/psnr"].value > 0
    resolved = tomli.loads((tmp_path / "runs" / "fog_toy" / "recipe.toml").read_text(encoding="utf-8"))
    used = {table: resolved[table]["use"] for table in ("data", "tokenizer", "perturbation") if table in resolved}
    assert used["perturbation"] == "fog"
    assert len(kinds) == 1 or set(used.values()) == {"fog"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My-Fog", "did you mean 'my_fog'?"),
        ("class", "cannot be the name of a Python package"),
        ("3d", "cannot be the name of a Python package"),
        ("../fog", "did you mean 'fog'?"),
        ("torch", "a package 'torch' already exists"),
    ],
)
def test_a_name_that_no_new_package_can_have_is_refused(name, words, write, tmp_path):
    with pytest.raises(RobustokError) as caught:
        write(name)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_a_component_of_the_kind_has_already_is_refused(write, tmp_path):
    with pytest.raises(RobustokError, match="there is a quantizer 'vq' already, from robustok_quantizers"):
        write("vq", "quantizer")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(write, tmp_path):
    (tmp_path / "fog").mkdir()
    with pytest.raises(RobustokError, match="this already exists"):
        write("fog")
    assert list((tmp_path / "fog").iterdir()) == []


def test_an_unknown_kind_is_refused(write, tmp_path):
    with pytest.raises(RobustokError, match="did you mean 'tokenizer'?"):
        write("fog", "tokeniser")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kinds", [("tokenizer", "sample_metric"), tuple(sorted(KINDS))], ids=["some", "all"])
def test_what_is_written_is_formatted(kinds, write):
    folder = write("fog", *kinds)
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--check", str(folder)]
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    done = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
