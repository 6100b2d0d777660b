"""Hostile names and messages never reach a terminal as they are, whatever command prints them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tomli
import tomli_w
from PIL import Image

from project import recipe_of

#: Rich markup that is not closed, an escape sequence, a right-to-left override, an emoji code, a forged message.
NAME = "d[/b] [red]\x1b[2J\u202e:bomb:\nerror: forged"
FILE = NAME.replace("/", "")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of a hostile name, in which the command runs; it has pictures of classes of hostile names."""
    folder = tmp_path / FILE
    for split, count in (("train", 20), ("val", 20)):
        for class_name in (f"a{FILE}", f"b{FILE}"):
            (folder / split / class_name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / class_name / f"{number}{FILE}.png")
    return folder


def assert_harmless(output: str) -> None:
    controls = {c for c in output if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    assert not controls, output
    assert not [line for line in output.splitlines() if line.startswith("error: forged")], output
    assert "Traceback" not in output


def recipe(folder: Path, **changes) -> Path:
    table = recipe_of(["train_tokenizer", "tokenize", "train_generator", "sample"], **changes)
    table["data"] = {"use": "image_folder", "path": str(folder), "image_size": 32}
    file = folder / f"r{FILE}.toml"
    file.write_text(tomli_w.dumps(table), encoding="utf-8")
    return file


def test_a_run_of_hostile_names_and_the_commands_after_it(folder, command, monkeypatch):
    file, out = recipe(folder), folder / f"out{FILE}"
    code, output, errors = command("check", file, "--show")
    assert_harmless(output + errors)
    assert code == 0
    assert tomli.loads(output)["data"]["path"] == str(folder)  # it is a recipe, whatever is in it
    code, output, errors = command("run", file, "--out", out)
    assert_harmless(output + errors)
    assert code == 0, errors
    monkeypatch.setenv("COLUMNS", "1000")
    assert "d[b] [red]\\u001b[2J" in command("compare", out / "tiny", out / "tiny")[1]
    picture = next(folder.rglob("*.png"))
    for arguments in (
        ("compare", out / "tiny", out / "tiny", "--json"),
        ("sample", out / "tiny", "--class", f"a{FILE}", "--count", 2, "--out", folder / f"s{FILE}.png"),
        ("sample", out / "tiny", "--class", f"c{FILE}", "--out", folder / "never.png"),
        ("encode", out / "tiny", picture, "--out", folder / f"codes{FILE}.npz"),
        ("decode", out / "tiny", folder / f"codes{FILE}.npz", "--out", folder / f"back{FILE}"),
        ("run", file, "--out", out),
    ):
        code, output, errors = command(*arguments)
        assert_harmless(output + errors)
        assert code == (2 if "never.png" in str(arguments[-1]) else 0), errors


@pytest.mark.parametrize(
    "arguments",
    [
        (NAME,),
        ("run", NAME),
        ("run", "main_train", f"--{NAME}"),
        ("run", "main_train", "--set", f"{NAME}=1"),
        ("run", "main_train", "--set", f"run.name={NAME}"),
        ("run", "main_train", "--set", f"stage.{NAME}.epochs=1"),
        ("run", "main_train", "--set", f"tokenizer.use={NAME}"),
        ("run", "main_train", "--set", f"data.{NAME}=[{{a="),
        ("run", "main_train", "--preset", NAME),
        ("run", "main_train", "--until", NAME),
        ("check", "main_train", NAME),
        ("compare", NAME, NAME),
        ("evaluate", NAME, NAME),
        ("evaluate", NAME, NAME, "--features", NAME),
        ("evaluate", NAME, NAME, "--device", NAME),
        ("plugins", NAME),
        ("plugins", "tokenizer", NAME),
        ("new", "plugin", NAME),
        ("new", "plugin", "fog", "--kind", NAME),
        ("import", NAME, NAME, NAME),
        ("export", NAME, NAME, NAME),
        ("sample", NAME, "--out", NAME),
        ("sample", NAME, "--count", NAME, "--out", "x.png"),
        ("encode", NAME, NAME, "--out", NAME),
        ("decode", NAME, NAME, "--out", NAME),
    ],
    ids=lambda arguments: "-".join(a for a in arguments if NAME not in a) or "command",
)
def test_a_hostile_argument_is_shown_and_not_obeyed(command, arguments):
    code, output, errors = command(*arguments)
    assert code in (1, 2)
    assert_harmless(output + errors)


def test_hostile_content_of_files_is_shown_and_not_obeyed(command, tmp_path):
    results = {f"{NAME}/gfid": {"value": 1.0}, "[final]/gfid": {"value": 2.0}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    code, output, errors = command("compare", "results.json", "results.json")
    assert_harmless(output + errors)
    assert "[final]/gfid" in output
    assert code == 0
    table = recipe_of()
    table["stage"][0] |= {NAME: 1, "losses": {NAME: {"use": NAME}}}
    table[NAME] = {"a": 1}
    (tmp_path / "r.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    code, output, errors = command("check", "r.toml")
    assert code == 2
    assert_harmless(output + errors)


def test_an_ascii_terminal_and_arguments_that_are_not_utf8_end_no_command(tmp_path):
    surroundings = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "robustok_core", "check", "main_train", b"no\xffne", "--set", b"data.path=\xff"]
    done = subprocess.run(command, check=False, capture_output=True, cwd=tmp_path, env=surroundings)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"not valid UTF-8" in done.stderr


def test_what_an_ascii_terminal_does_not_have_is_escaped_on_both_streams(tmp_path):
    (tmp_path / "é.json").write_text(json.dumps({"stage/dé": {"value": 1.0}}))
    surroundings = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    for name, stream in (("é.json", "stdout"), ("dé.json", "stderr")):
        command = [sys.executable, "-m", "robustok_core", "compare", "é.json", name]
        done = subprocess.run(command, check=False, capture_output=True, cwd=tmp_path, env=surroundings)
        assert b"d\\xe9" in getattr(done, stream), done
        assert b"d?" not in done.stdout + done.stderr
