"""The recorded commit is that of robustok's own source."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from robustok_core.runs import provenance
from robustok_core.runs.provenance import git_commit

NAMED = ("-c", "user.name=a", "-c", "user.email=a@b")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *NAMED, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    return done.stdout.strip()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Puts this code in a folder, as if it had been imported from there."""

    def put(package: Path) -> Path:
        file = package / "runs" / "provenance.py"
        file.parent.mkdir(parents=True)
        shutil.copyfile(provenance.__file__, file)
        monkeypatch.setattr(provenance, "__file__", str(file))
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
