"""Settings of all tests, and what they share: the registry, and one trained project."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, settings

from browser import started
from project import TO_SAMPLES, Project, recipe_of
from robustok_core import Registry, load_registry
from robustok_core.cli import main

torch.set_num_threads(int(os.environ.get("ROBUSTOK_TEST_THREADS", "1")))
# The first backward pass of a process starts a thread for each device. Once torch.compile or make_fx has traced
# anything, torch pretends that there are eight; and a copy of a process with such threads, as many tests make, cannot
# go backward.
torch.ones(1, requires_grad=True).sum().backward()
# The same examples in every run, however slow the machine.
settings.register_profile(
    "robustok", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# Other examples for every seed, in `tox -e soak`.
settings.register_profile("soak", parent=settings.get_profile("robustok"), derandomize=False, database=None)
settings.load_profile("soak" if "ROBUSTOK_SOAK_TIMES" in os.environ else "robustok")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes do not name a test: they may hold the time they were made at, and pytest-xdist needs equal names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory) -> Iterator[None]:
    """What is remembered of data sets stays out of the user's own cache, which the tests do not read either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All installed plugins."""
    return load_registry()


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Project:
    """A project that was run from images to samples; not to be changed."""
    return Project(tmp_path_factory.mktemp("trained"), TO_SAMPLES).run()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, in which `browser.visited` opens pages; where there is none, the test is skipped."""
    with started() as chromium:
        yield chromium


@pytest.fixture
def command(capsys, monkeypatch, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Runs `robustok` in a folder of its own; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def refused(command) -> Callable[..., str]:
    """Runs a command that must fail with one message; returns that message."""

    def run(*arguments: Any, code: int = 2) -> str:
        found, _, output = command(*arguments)
        assert found == code, output
        assert output.count("error: ") == 1, output
        assert "Traceback" not in output
        assert len(output.splitlines()) <= 2, output
        return output

    return run


@pytest.fixture
def recipe_file(tmp_path) -> Callable[..., Path]:
    """Writes r.toml, a recipe that trains a tokenizer, with changes by dotted path or as `recipe_of` takes them."""

    def write(by_path: dict[str, Any] | None = None, **changes: Any) -> Path:
        table = recipe_of(**changes)
        for path, value in (by_path or {}).items():
            *above, last = path.split(".")
            held = table
            for key in above:
                held = held[key]
            held[last] = value
        file = tmp_path / "r.toml"
        file.write_text(tomli_w.dumps(table))
        return file

    return write
