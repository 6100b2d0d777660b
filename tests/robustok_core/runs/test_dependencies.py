"""What a command says when a package that robustok needs is missing or damaged."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

from robustok_core.runs.dependencies import _modules_of, failed_import, requirements

#: Runs the installed command where nothing of a package is installed.
_WITHOUT = """
import importlib.metadata, sys
package = sys.argv.pop(1)
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
def version(name, of=importlib.metadata.version):
    if name == package:
        raise importlib.metadata.PackageNotFoundError(name)
    return of(name)
sys.meta_path.insert(0, Missing())
importlib.metadata.version = version
"""
_START = "from robustok_core.__main__ import start; start()"
_ONE_MESSAGE = "error: this needs the package {0}, which is not installed\n  hint: pip install '{0}>="


def started(code: str, *arguments: object, **surroundings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **surroundings}
    words = [sys.executable, "-c", code + _START, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


def damaged(folder, package: str, code: str) -> dict[str, str]:
    """The environment in which a package is found whose import fails."""
    file = folder / package / "__init__.py"
    file.parent.mkdir()
    file.write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("torch", ["run", "main_train"]),
        ("torch", ["view", "x"]),
        ("accelerate", ["check", "main_train"]),
        ("click", ["--help"]),
    ],
)
def test_a_missing_package_is_one_message_with_the_command_that_installs_it(package, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = started(_WITHOUT, package, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(_ONE_MESSAGE.format(package)), done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_each_process_of_a_launch_says_what_is_missing():
    done = started(_WITHOUT, "torch", "run", "main_train", RANK="1", WORLD_SIZE="2")
    assert done.stderr.startswith("error on process 1: this needs the package torch")
    assert len(done.stderr.splitlines()) == 2


def test_a_package_that_fails_while_it_is_imported_is_named_with_its_version_and_its_error(tmp_path):
    code = "raise OSError('libgomp.so.1: cannot open shared object file')"
    done = started("", "run", "main_train", **damaged(tmp_path, "torch", code))
    assert done.returncode == 1
    version = importlib.metadata.version("torch")
    assert done.stderr.splitlines()[0] == (
        f"error: this needs the package torch, and torch {version} cannot be imported: "
        "OSError: libgomp.so.1: cannot open shared object file"
    )
    assert len(done.stderr.splitlines()) == 2


def test_a_package_of_which_only_folders_are_left_is_named(tmp_path, monkeypatch):
    (tmp_path / "hollow").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("robustok_core.runs.dependencies.requirements", lambda: {"hollow": "hollow>=1"})
    import hollow

    with pytest.raises(AttributeError) as raised:
        hollow.Tensor  # noqa: B018
    assert "the package hollow, which is not installed" in str(failed_import(raised.value))


def test_an_error_while_an_error_is_explained_hides_nothing(tmp_path):
    code = """
import robustok_core.cli, robustok_core.cli.blame
def broken(error):
    raise TypeError("this explains nothing")
robustok_core.cli.failure_of_the_machine = robustok_core.cli.blame.blamed = broken
import robustok_core.cli.run
def unheard_of(*_, **__):
    raise KeyError("the first error")
robustok_core.cli.run.run.callback = unheard_of
"""
    done = started(code, "run", "main_train")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'the first error'"
    assert "explains nothing" not in done.stderr


@pytest.mark.parametrize("error", [ModuleNotFoundError("no", name="my_layers"), ImportError("no"), KeyError("torch")])
def test_the_imports_of_others_are_theirs(error):
    assert failed_import(error) is None


def test_env_works_without_torch():
    done = started(_WITHOUT, "torch", "env")
    assert (done.returncode, done.stderr) == (0, "")
    assert "torch: not installed" in done.stdout
    assert "precision auto" in done.stdout
    found = json.loads(started(_WITHOUT, "torch", "env", "--json").stdout)
    assert found["libraries"]["torch"] is None
    assert found["libraries"]["numpy"]


def test_env_names_the_error_of_a_damaged_package_but_no_folder(tmp_path):
    code = "raise OSError('/home/who/My Venv/lib/libc10.so: undefined symbol')"
    done = started("", "env", **damaged(tmp_path, "torch", code), HOME="/home/who/My Venv")
    assert done.returncode == 0
    assert "which cannot be imported (OSError: lib/libc10.so: undefined symbol)" in done.stdout
    assert "who" not in done.stdout


def test_every_requirement_is_found_by_the_name_of_its_module():
    installed = importlib.metadata.packages_distributions()
    needed = requirements()
    assert {"torch", "gradio"} <= needed.keys()
    assert needed["torch"].startswith("torch>=")
    assert needed["gradio"] == "robustok[view]"
    for name in needed:
        for module in _modules_of(name):
            owners = {owner.lower().replace("_", "-") for owner in installed.get(module, [])}
            assert name.lower().replace("_", "-") in owners or module not in installed, name
            assert module in installed or "[" in needed[name], f"{name} has no module {module}"
