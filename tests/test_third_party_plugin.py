"""The example plugin is installed as a stranger would install it, and takes part in a run."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "third_party_plugin"


def call(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has what this one has, and the example plugin besides."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # Through a .pth file it sees the packages of this environment: a copy with torch would take gigabytes.
    here = {*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(here)]
    Path(packages, "robustok_of_the_tests.pth").write_text("\n".join(lines), encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", python)
    # Without an index, pip must find the plugin's dependency, robustok, in the environment.
    call(*pip, "install", "--no-index", "--no-build-isolation", EXAMPLE, cwd=folder)
    return python


def test_its_components_are_listed(python: Path, tmp_path: Path):
    listing = call(python, "-m", "robustok_core", "plugins", cwd=tmp_path)
    assert sum("metric mae" in line and "perturbation drop" in line for line in listing.splitlines()) == 1


def test_its_recipe_runs_and_results_hold_its_metric(python: Path, tmp_path: Path):
    recipe = EXAMPLE / "example_recipe.toml"
    call(python, "-m", "robustok_core", "run", recipe, "--out", tmp_path / "runs", cwd=tmp_path)
    (file,) = tmp_path.glob("runs/*/results.json")
    results = json.loads(file.read_text(encoding="utf-8"))
    (error,) = (value for name, value in results.items() if name.rpartition("/")[2] == "mae")
    assert 0 < error < 128, "a mean error in 8-bit levels of a tokenizer that learnt anything"
