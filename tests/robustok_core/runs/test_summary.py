"""What the end of a run says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest


def said(output: str) -> dict[str, list[str]]:
    """The lines at the end by title."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in output[output.index("\nresults  ") + 1 :].splitlines():
        title = line[:8].strip() or title
        found.setdefault(title, []).append(line[10:])
    return found


def test_the_end_of_a_run_says_where_its_files_lie_and_what_to_try(command, trained):
    code, output, _ = command("run", trained.folder)
    assert code == 0
    assert output.index("train_tokenizer/steps") < output.index("\nresults  ")
    end = said(output)
    assert list(end) == ["results", "pictures", "try"]
    files = [Path(file) for file in (*end["results"], *end["pictures"])]
    assert all(file.is_file() for file in files)
    assert {"results.json", "grid.png"} <= {file.name for file in files}
    commands = {shlex.split(line)[1]: shlex.split(line) for line in end["try"]}
    assert {"sample", "encode", "compare"} <= commands.keys()
    assert command(*commands["sample"][1:])[0] == 0


def test_a_run_without_a_generator_is_not_told_to_sample(command, recipe_file):
    _, output, _ = command("run", recipe_file(), "--out", "out")
    end = said(output)
    assert "robustok sample" not in output
    assert any(line.startswith("robustok encode out/tiny ") for line in end["try"])


@pytest.mark.parametrize("arguments", [("--quiet",), ("-q", "--seeds", "0,1")])
def test_a_quiet_run_prints_nothing(command, recipe_file, arguments):
    assert command("run", recipe_file(), "--out", "out", *arguments) == (0, "", "")
    assert list(Path("out").glob("tiny*/results.json"))
