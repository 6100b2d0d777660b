"""The recorded commit is that of robustok's own source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomli

from robustok_core.runs import source_commit
from robustok_core.runs.source_commit import COMMIT_FILE, git_commit

NAMED = ("-c", "user.name=a", "-c", "user.email=a@b")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *NAMED, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    return done.stdout.strip()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Puts this code in a folder, as if it had been imported from there."""

    def put(package: Path) -> Path:
        file = package / "runs" / "source_commit.py"
        file.parent.mkdir(parents=True)
        shutil.copyfile(source_commit.__file__, file)
        monkeypatch.setattr(source_commit, "__file__", str(file))
        return file

    return put


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with one commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("mine")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "mine")
    return tmp_path


def test_a_checkout_gives_its_commit_and_whether_it_has_changes(repository, place):
    file = place(repository / "robustok_core")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "source")
    commit = git(repository, "rev-parse", "--short", "HEAD")
    assert git_commit() == commit
    file.write_text("changed")
    assert git_commit() == f"{commit}+"


def test_files_that_git_does_not_track_are_no_change(repository, place):
    place(repository / "robustok_core")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "source")
    (repository / "robustok_core" / "untracked.py").write_text("new")
    assert git_commit() == git(repository, "rev-parse", "--short", "HEAD")


def test_the_index_of_the_users_checkout_is_not_written(repository, place):
    file = place(repository / "robustok_core")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "source")
    os.utime(file, ns=(1, 1))  # then git looks at the content, and would store in its index that it is the same
    index = (repository / ".git" / "index").read_bytes()
    assert git_commit() == git(repository, "rev-parse", "--short", "HEAD")
    assert (repository / ".git" / "index").read_bytes() == index


@pytest.mark.parametrize("added", [False, True])
def test_a_repository_around_an_environment_does_not_count(repository, place, added):
    place(repository / ".venv" / "lib" / "site-packages" / "robustok_core")
    if added:
        git(repository, "add", "-f", ".")
        git(repository, "commit", "-qm", "environment")
    assert git_commit() is None


def test_code_that_a_repository_ignores_does_not_count(repository, place):
    place(repository / "robustok_core")
    assert git_commit() is None


def test_no_repository_gives_none(tmp_path, place):
    place(tmp_path / "robustok_core")
    assert git_commit() is None


def test_the_repository_of_a_git_hook_does_not_count(repository, place, monkeypatch, tmp_path_factory):
    place(tmp_path_factory.mktemp("installed") / "robustok_core")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    assert git_commit() is None


def test_an_installed_robustok_has_the_commit_that_was_recorded_when_it_was_built(repository, place, monkeypatch):
    """A wheel of a small checkout with the hook of ours."""
    root = Path(__file__).parents[3]
    file = place(repository / "robustok_core")
    (file.parents[1] / "__init__.py").write_text("")
    shutil.copyfile(root / "hatch_build.py", repository / "hatch_build.py")
    (repository / "pyproject.toml").write_text(
        '[project]\nname = "robustok"\nversion = "1"\n[tool.hatch.build.targets.wheel]\npackages = ["robustok_core"]\n'
        "[tool.hatch.build.hooks.custom]\n"
    )
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "source")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(repository / "dist")]
    subprocess.run(command, check=True, cwd=repository, capture_output=True)
    (wheel,) = (repository / "dist").glob("*.whl")
    installed = repository / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / "robustok_core" / COMMIT_FILE).is_file()
    monkeypatch.setattr(source_commit, "__file__", str(installed / "robustok_core" / "runs" / "source_commit.py"))
    assert git_commit() == git(repository, "rev-parse", "--short", "HEAD")


def test_the_build_of_robustok_records_its_commit():
    settings = tomli.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert "custom" in settings["tool"]["hatch"]["build"]["hooks"]
