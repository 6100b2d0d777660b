"""A disk that fills up at any moment: one message, nothing half-written, and the same results once there is room."""

from __future__ import annotations

import itertools
import shutil
from typing import Any

import pytest

from full_disk import full_after, leftovers, no_room
from project import Project, contents
from robustok_core import RunError


def made(project: Project) -> dict[str, bytes]:
    return {name: held for name, held in contents(project.folder).items() if name.startswith(("artifacts", "results"))}


@pytest.mark.parametrize("for_good", [True, False], ids=["and stays full", "for one file"])
def test_a_run_says_that_the_disk_is_full_and_goes_on_when_there_is_room(trained, tmp_path, for_good):
    project, refusals = Project.of(trained.table, tmp_path), 0
    for flushes in itertools.count(1, 7):
        refused = None
        try:
            with full_after(flushes, for_good=for_good):
                project.run()
        except RunError as error:
            refused = error
        assert leftovers(tmp_path) == []
        if refused is None:
            break
        refusals += 1
        assert refused.what.startswith("cannot write: ")
        assert str(project.folder) in str(refused.where)
        assert ".writing-" not in str(refused)
    assert refusals > len(trained.table["stage"]), "each stage is flushed to the disk"
    assert made(project) == made(trained)
    assert [step_of(line) for line in project.logged()] == [step_of(line) for line in trained.logged()]


def step_of(line: dict[str, Any]) -> tuple[str, int]:
    return line["stage"], line["step"]


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (("sample", "RUN"), "new.png"),
        (("sample", "RUN"), "new.npz"),
        (("sample", "RUN"), "new"),
        (("encode", "RUN", "IMAGES"), "new.npz"),
        (("decode", "RUN", "CODES"), "new"),
    ],
)
def test_a_command_leaves_nothing_on_a_full_disk(refused, trained, tmp_path, arguments, out):
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(trained.artifact("samples") / "grid.png", images / "1.png")
    places = {"RUN": trained.folder, "IMAGES": images, "CODES": trained.artifact("samples") / "codes.npy"}
    before = list(tmp_path.rglob("*"))
    with no_room():
        output = refused(*(places.get(argument, argument) for argument in arguments), "--out", out, code=1)
    assert "cannot write: " in output
    assert list(tmp_path.rglob("*")) == before
