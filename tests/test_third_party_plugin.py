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
from PIL import Image

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


def broken_plugin(folder: Path) -> None:
    """A distribution, as pip leaves one, of which the module raises when it is imported."""
    (folder / "robustok_broken.py").write_text('raise RuntimeError("no such device")\n', encoding="utf-8")
    info = folder / "robustok_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robustok-broken\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[robustok]\nbroken = robustok_broken\n", encoding="utf-8")


def test_its_components_are_listed_with_the_distribution_that_brings_them(python: Path, tmp_path: Path):
    assert_listed(call(python, "-m", "robustok_core", "plugins", cwd=tmp_path))


def assert_listed(listing: str) -> list[str]:
    """Fails where the example's components or its distribution are missing; gives the lines, spaces made single."""
    lines = [" ".join(line.split()) for line in listing.splitlines()]
    assert "example robustok-example" in lines
    assert {line.partition(" ")[0] for line in lines if line.endswith("[example]")} == {
        "average_pool",
        "by_place",
        "train_probe",
        "drop",
        "edges",
        "last_part",
        "mae",
        "mean_distance",
        "nearest",
        "patches",
        "patches_file",
        "stripes",
    }
    return lines


@pytest.fixture(scope="module")
def trained(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of its recipe."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = EXAMPLE / "example_recipe.toml"
    call(python, "-m", "robustok_core", "run", recipe, "--out", folder / "runs", cwd=folder)
    return folder / "runs" / "third_party_plugin"


def test_its_recipe_runs_and_results_hold_its_metrics(trained: Path):
    results = json.loads((trained / "results.json").read_text(encoding="utf-8"))
    error = results["evaluate_tokenizer/mae"]
    assert error["higher_is_better"] is False
    assert 0 < error["value"] < 128, "a mean error in 8-bit levels of a tokenizer that learnt anything"
    perturbed, clean = (results[f"evaluate_tokenizer/{name}_average_pool"]["value"] for name in ("pfd", "rfd"))
    assert perturbed > clean
    measured = {"train_probe/accuracy", "evaluate_generator/mean_distance", "compare_decoders/kept_sigma"}
    assert measured <= results.keys()


def test_its_command_uses_what_was_trained(python: Path, trained: Path, tmp_path: Path):
    Image.new("RGB", (50, 40), "grey").save(tmp_path / "grey.png")
    call(python, "-m", "robustok_core", "redraw", trained, "grey.png", "drawn.png", cwd=tmp_path)
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (32, 32)


def test_every_component_keeps_what_its_kind_promises(python: Path, tmp_path: Path):
    message = call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "tests", cwd=tmp_path)
    assert "12 passed" in message


def test_a_plugin_that_raises_on_import_is_named_and_stops_no_other(python: Path, tmp_path: Path):
    broken_plugin(tmp_path)  # `python -m` looks for modules and distributions in the folder it is started in
    lines = assert_listed(call(python, "-m", "robustok_core", "plugins", cwd=tmp_path))
    assert "broken robustok-broken, not in use: RuntimeError: no such device" in lines
    call(python, "-m", "robustok_core", "check", EXAMPLE / "example_recipe.toml", cwd=tmp_path)


def test_a_component_that_is_missed_points_at_the_plugin_that_failed(python: Path, tmp_path: Path):
    broken_plugin(tmp_path)
    change = "perturbation.use=theirs"
    command = [python, "-m", "robustok_core", "check", EXAMPLE / "example_recipe.toml", "--set", change]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no perturbation is called 'theirs'" in done.stderr
    assert "broken: RuntimeError: no such device" in done.stderr
