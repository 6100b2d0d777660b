"""The command `run`: exit codes, stopping early, and going on in a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import robustok_core.runs.runner
from project import contents


def test_a_run_exits_with_0_and_prints_results_and_a_second_run_skips_it(command, recipe_file):
    code, output, _ = command("run", recipe_file(), "--out", "out")
    assert code == 0
    assert re.search(r"train_tokenizer/steps +5\b", output)
    code, output, _ = command("run", recipe_file(), "--out", "out")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in output


def test_an_interrupted_run_exits_with_130_and_says_how_to_resume(refused, recipe_file, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robustok_training.trainer.Trainer._step", stop)
    output = refused("run", recipe_file(), "--out", "out", code=130)
    assert "stopped in stage 'train_tokenizer'" in output
    assert "hint: the same command starts this stage again: out/tiny" in output


def test_ctrl_c_before_the_first_stage_exits_with_130(command, recipe_file, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(robustok_core.runs.runner, "make_accelerator", stop)
    assert command("run", recipe_file()) == (130, "", "\ninterrupted\n")


@pytest.fixture
def two_stages(recipe_file):
    """The file of a recipe that trains a tokenizer and evaluates it."""
    file = recipe_file()
    with file.open("a") as opened:
        opened.write('[[stage]]\nuse = "evaluate_tokenizer"\nlimit = 20\nmetrics = { psnr = { use = "psnr" } }\n')
    return file


def test_until_stops_after_a_stage_and_running_the_folder_runs_the_rest(command, two_stages):
    code, output, _ = command("run", two_stages, "--out", "out", "--until", "train_tokenizer")
    assert code == 0
    assert "not run: evaluate_tokenizer; `robustok run out/tiny` goes on" in output
    results = json.loads(Path("out/tiny/results.json").read_text())
    assert {name.partition("/")[0] for name in results} == {"train_tokenizer"}
    code, output, _ = command("run", "out/tiny")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in output
    assert "evaluate_tokenizer/psnr" in output
    assert "not run" not in output


def test_the_results_of_a_run_that_stopped_early_are_checked_and_completed(command, two_stages):
    assert command("run", two_stages, "--out", "out", "--until", "train_tokenizer")[0] == 0
    file = Path("out/tiny/results.json")
    code, output, _ = command("verify", "out/tiny")
    assert (code, f"{file}: good" in output) == (0, True)
    whole = file.read_text()
    file.write_text(whole.replace("1", "2"))
    assert command("verify", "out/tiny")[0] == 1
    assert command("compare", "out/tiny", "out/tiny")[0] != 0
    file.write_text(whole)
    output = command("run", "out/tiny")[1]
    assert "damaged" not in output
    assert not Path("out/tiny/history").exists()


def test_until_keeps_what_later_stages_did_before(command, two_stages):
    assert command("run", two_stages, "--out", "out")[0] == 0
    before = contents(Path("out"))
    code, output, _ = command("run", "out/tiny", "--until", "train_tokenizer")
    assert code == 0
    assert "evaluate_tokenizer: done before, unchanged" in output
    assert contents(Path("out")) == before


def test_until_must_name_a_stage_of_the_recipe(refused, recipe_file):
    output = refused("run", recipe_file(), "--out", "out", "--until", "train_tokeniser")
    assert "--until: no stage is called 'train_tokeniser'\n  hint: did you mean 'train_tokenizer'?" in output
    assert not Path("out").exists()


def test_a_run_folder_resumes_with_its_own_recipe_after_it_is_moved(command, recipe_file):
    assert command("run", recipe_file(), "--out", "out")[0] == 0
    Path("out/tiny").rename("moved")
    results = Path("moved/results.json").read_text()
    code, output, _ = command("run", "moved")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in output
    assert Path("moved/results.json").read_text() == results
    assert command("run", "moved", "--set", "stage.train_tokenizer.epochs=2", "--set", "run.name=other")[0] == 0
    assert Path("other/results.json").exists()
    assert Path("moved/results.json").read_text() == results


def test_the_help_of_run_has_an_example_that_works(command):
    _, output, _ = command("run", "--help")
    example = re.search(r"Example: `robustok (run [^`]+)`", " ".join(output[:400].split()))
    assert command("check", *example[1].split()[1:])[0] == 0
