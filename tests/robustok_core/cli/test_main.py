"""Every command: one message with its location and a hint, the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from commands import robustok
from project import line_of


def test_a_syntax_error_is_named_with_file_and_line(refused, tmp_path):
    (tmp_path / "r.toml").write_text('[run]\nname = "x"\nseed == 3\n')
    assert re.search(r"error: r\.toml:3: not valid TOML: .*\(column \d+\)\n  hint: ", refused("check", "r.toml"))


@pytest.mark.parametrize(
    ("path", "value", "line", "words"),
    [
        (
            "tokenizer.chanels",
            8,
            "chanels",
            "tokenizer.chanels: unknown key 'chanels'\n  hint: did you mean 'channels'?",
        ),
        (
            "data.use",
            "fashion_mnits",
            "use",
            "no dataset is called 'fashion_mnits'\n  hint: did you mean 'fashion_mnist'?",
        ),
        ("tokenizer.channels", "8", "channels", "tokenizer.channels: expected int, found str '8'"),
        ("perturbation.beta", 1.5, "beta", "perturbation.beta: 1.5 is out of range: "),
        ("perturbation.delta", 33, "[perturbation]", "delta = 33 exceeds the codebook size (K = 32)"),
        ("tokenizer.quantizer.width", 0, "width", "tokenizer.quantizer.width: 0 is out of range: "),
    ],
)
def test_a_mistake_is_one_message_with_its_line(refused, recipe_file, path, value, line, words):
    file = recipe_file({path: value})
    output = refused("run", file, "--out", "out")
    assert words in output
    assert line_of(file, line) in output
    assert not Path("out").exists()


def test_a_misspelt_command_names_the_one_that_is_meant(command):
    code, _, output = command("studdy")
    assert (code, "Error: No such command 'studdy'. Did you mean 'study'?" in output) == (2, True), output
    code, _, output = command("xyz")
    assert (code, "Error: No such command 'xyz'.\n" in output) == (2, True), output


def test_all_mistakes_are_reported_in_one_pass(command, recipe_file):
    changes = {"tokenizer.chanels": 8, "perturbation.beta": 1.5, "run.seed": "three", "data.use": "mnist"}
    code, _, output = command("check", recipe_file(changes))
    assert code == 2
    assert output.count("error: ") == 4


def test_a_patch_that_does_not_divide_the_image_is_refused(refused, recipe_file):
    quantizer = {"use": "vq", "codebook_size": 32, "width": 4}
    tokenizer = {"use": "vit_vq", "image_size": 32, "patch_size": 7, "width": 16, "depth": 1, "quantizer": quantizer}
    output = refused("check", recipe_file({"tokenizer": tokenizer}))
    assert "32" in output
    assert "7" in output


def test_a_missing_recipe_is_one_message(refused):
    assert "no recipe file or bundled recipe is called 'main_trian'\n  hint: did you mean 'main_train'?" in refused(
        "run", "main_trian"
    )


def test_a_change_without_a_value_is_one_message(refused, recipe_file):
    output = refused("run", recipe_file(), "--set", "run.seed")
    assert "KEY=VALUE" in output
    assert "run.seed" in output


@pytest.mark.parametrize("value", ["{ use = vq", '{ use = "vq" ', "[1, 2", "{use: vq}"])
def test_an_invalid_table_or_list_is_not_read_as_a_string(refused, recipe_file, value):
    output = refused("check", recipe_file(), "--set", f"tokenizer.quantizer={value}")
    assert f"error: --set tokenizer.quantizer: {value!r} is not valid TOML: " in output
    assert "hint: as in --set '" in output


def test_an_unknown_name_is_located_at_the_override_that_set_it(command, recipe_file):
    code, _, output = command("check", recipe_file(), "--set", "tokenizer.use=conv_qv", "--set", "tokenizer.width=8")
    assert code == 2
    assert output.startswith("error: --set tokenizer.use: tokenizer.use: no tokenizer is called 'conv_qv'\n")


def what_a_command_sets(arguments: str, **surroundings: str) -> dict[str, str]:
    """The OpenMP variables in a fresh interpreter's environment after a command."""
    code = f"""
import atexit, json, os
atexit.register(lambda: print("\\n" + json.dumps({{k: v for k, v in os.environ.items() if k[:4] in ("OMP_", "GOMP")}})))
{arguments}
"""
    environment = {name: value for name, value in os.environ.items() if name[:4] not in ("OMP_", "GOMP")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | surroundings, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


VERSION = "from robustok_core.cli import main; main(['--version'])"


def test_idle_threads_yield_early_unless_the_user_says_otherwise_or_torch_is_loaded():
    assert what_a_command_sets(VERSION) == {"GOMP_SPINCOUNT": "1000"}
    assert what_a_command_sets(VERSION, OMP_NUM_THREADS="1") == {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "1"}
    assert what_a_command_sets(VERSION, OMP_WAIT_POLICY="ACTIVE") == {"OMP_WAIT_POLICY": "ACTIVE"}
    assert what_a_command_sets(VERSION, GOMP_SPINCOUNT="7") == {"GOMP_SPINCOUNT": "7"}
    assert what_a_command_sets(f"import torch; {VERSION}") == {}
    assert what_a_command_sets("import robustok_core; robustok_core.run") == {}


def test_an_argument_of_any_length_is_named_in_few_words(command):
    for arguments in (["run", "main_train", "x" * 9000], ["sample", "r", "--count", "9" * 9000], ["y" * 9000]):
        code, _, output = command(*arguments)
        assert code == 2
        assert len(output) < 2000


def started(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the installed command does, after `code`."""
    code += "\nfrom robustok_core.__main__ import start; start()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_an_interrupt_while_the_command_starts_is_no_traceback():
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs these tests may ignore it
class Interrupting:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""
    done = started(code, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_interrupt_after_the_end_changes_nothing():
    code = "import atexit, os, signal; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))"
    done = started(code, "--version")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", ["x", "-1", "9" * 5000])
def test_a_process_number_that_is_no_number_says_nothing(refused, monkeypatch, number):
    monkeypatch.setenv("RANK", number)
    monkeypatch.setenv("WORLD_SIZE", number)
    assert refused("verify", "nowhere").startswith("error: nowhere: ")


@pytest.mark.parametrize(
    ("launched", "prints"),
    [({"RANK": "0", "WORLD_SIZE": "2"}, True), ({"RANK": "1", "WORLD_SIZE": "2"}, False), ({"RANK": "1"}, True)],
)
def test_of_several_processes_the_main_one_prints(launched, prints):
    done = robustok("recipes", env={**os.environ, **launched})
    assert (done.returncode, "main_train" in done.stdout) == (0, prints), done.stderr


def test_a_dry_run_is_told_of_the_command_that_makes_one(command, recipe_file):
    code, _, message = command("run", recipe_file(), "--dry-run")
    assert code == 2
    assert "No such option '--dry-run'. `robustok check RECIPE --show` checks without running." in message
    assert "`robustok check" not in command("run", recipe_file(), "--sett", "run.seed=3")[2]
