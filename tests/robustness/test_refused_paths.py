"""Paths that a system refuses or that never end: no permission, too long, a pipe where a file was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from processes import without_privileges
from project import Project, contents
from robustok_core import RunError
from robustok_core.runs.failures import named_failures
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.step_log import drop_lines

LONG = "n" * 300


def commands(run: Path, inside: Path) -> dict[str, list[str | Path]]:
    """A call of every command that takes a path; each names a path in `inside`, or the run."""
    return {
        "run": ["run", run],
        "check": ["check", run],
        "fetch": ["fetch", inside / "r.toml"],
        "compare": ["compare", run, run],
        "history": ["history", run],
        "verify": ["verify", run],
        "push": ["push", run, "a/b", "--to", inside / "pushed"],
        "encode": ["encode", run, inside, "--out", inside / "codes.npz"],
        "decode": ["decode", run, inside / "codes.npz", "--out", inside / "decoded"],
        "sample": ["sample", run, "--out", inside / "s.png"],
        "evaluate": ["evaluate", inside / "a.npz", inside / "b.npz", "--features", "fashion_classifier"],
        "import": ["import", "auto", inside / "x.pt", inside / "imported"],
        "export": ["export", "robustok", run, inside / "x.pt"],
        "new": ["new", "plugin", "fog", "--out", inside / "fog"],
    }


NAMES = tuple(commands(Path(), Path()))


def assert_one_message(call, arguments, named: str) -> None:
    code, _, output = call(*arguments)
    assert code in (1, 2)
    assert output.lower().count("error: ") == 1
    assert "Traceback" not in output
    assert named in output


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_may_not_be_read_is_one_message(command, tmp_path, name):
    closed = tmp_path / "closed"
    (closed / "run").mkdir(parents=True)
    (closed / "run" / "run.json").write_text("{}")
    closed.chmod(0)
    try:
        without_privileges(lambda: assert_one_message(command, commands(closed / "run", closed)[name], str(closed)))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_too_long_is_one_message(command, tmp_path, name):
    assert_one_message(command, commands(tmp_path / LONG, tmp_path / LONG)[name], LONG[:100])


@pytest.mark.parametrize("pattern", ["artifacts", "artifacts/*", "artifacts/tokenizer-*/model.safetensors"])
def test_what_may_not_be_read_is_not_taken_for_damaged(trained, tmp_path, pattern):
    shutil.copytree(trained.out, tmp_path / "out")
    project = Project.of(trained.table, tmp_path / "out")
    closed = {path: path.stat().st_mode for path in project.folder.glob(pattern)}
    before = contents(project.folder / "artifacts")

    def act() -> None:
        with pytest.raises((RunError, PermissionError), match=r"[Pp]ermission"):
            project.run()

    for path in closed:
        path.chmod(0)
    try:
        without_privileges(act)
    finally:
        for path, mode in closed.items():
            path.chmod(mode)
    project.run()
    assert project.results == trained.results
    assert contents(project.folder / "artifacts") == before


def test_what_the_system_refuses_in_a_stage_is_no_bug(tmp_path):
    with pytest.raises(RunError, match="too long"), named_failures("stage", "where"):
        (tmp_path / LONG).read_bytes()
    with pytest.raises(FileNotFoundError), named_failures("stage", "where"):
        (tmp_path / "missing").read_bytes()


def test_a_working_folder_that_is_gone_is_no_bug(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(RunError, match="the working folder is no longer there"), named_failures("stage", "where"):
        Path("file").absolute()


@pytest.mark.parametrize("read", [read_json, read_tensors, lambda file: drop_lines(file, "f", 0)])
def test_a_pipe_in_the_place_of_a_file_is_refused_instead_of_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="pipe: .*not a file"):
        read(tmp_path / "pipe")
