"""The command as a user meets it: one message with its place and a hint, the right exit code, never a traceback."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli
import tomli_w
import torch
from attrs import frozen
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

import robustok_core.recipe.registry
import robustok_core.runs.files
import robustok_core.runs.folder
import robustok_core.runs.runner
from robustok_core import Perturbation, hookimpl, load_registry
from robustok_core.cli import main
from robustok_core.recipe.source import bundled_recipes
from robustok_core.values.numbers import number_text

PARITY = Path(__file__).parents[2] / "parity" / "robustok_tokenizer_a.safetensors"


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs the command in a folder of its own; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def refused(command):
    """Runs a command that must fail with one message; gives that message."""

    def run(*arguments: Any, code: int = 2) -> str:
        found, _, said = command(*arguments)
        assert found == code, said
        assert said.count("error: ") == 1, said
        assert "Traceback" not in said
        assert len(said.splitlines()) <= 2, said
        return said

    return run


@pytest.fixture
def recipe(tiny_recipe, tmp_path):
    """Writes the tiny recipe, with keys changed by dotted path, as TOML."""

    def write(changes: dict[str, Any] | None = None, **stage: Any) -> Path:
        table = tiny_recipe(**{"epochs": 1, **stage})
        for path, value in (changes or {}).items():
            *above, last = path.split(".")
            held = table
            for key in above:
                held = held[key]
            held[last] = value
        file = tmp_path / "r.toml"
        file.write_text(tomli_w.dumps(table))
        return file

    return write


def line_of(file: Path, key: str) -> str:
    lines = file.read_text().splitlines()
    return f"r.toml:{next(number for number, line in enumerate(lines, start=1) if line.startswith(key))}: "


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".writing-")]


def write_images(folder: Path, counts: dict[str, int], size: int = 32) -> Path:
    """A folder of classes with random pictures, under train/ and val/."""
    pixels = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, count in counts.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(pixels.integers(0, 256, (size, size, 3), dtype=np.uint8))
                picture.save(folder / split / name / f"{number}.png")
    return folder


def of_images(path: Path) -> dict[str, Any]:
    return {"data": {"use": "image_folder", "path": str(path), "image_size": 32}}


# --- a run that succeeds --------------------------------------------------------------------------


def test_a_run_ends_with_0_and_prints_its_results_and_the_next_one_skips_it(command, recipe):
    code, said, _ = command("run", recipe(), "--out", "out")
    assert code == 0
    assert re.search(r"train_tokenizer/steps +5\b", said)
    code, said, _ = command("run", recipe(), "--out", "out")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in said


def test_an_interrupted_run_ends_with_130_and_says_how_to_go_on(refused, recipe, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robustok_training.trainer.Trainer._step", stop)
    said = refused("run", recipe(), "--out", "out", code=130)
    assert "stopped in stage 'train_tokenizer'" in said
    assert "hint: the same command begins this stage again: out/tiny" in said


def test_ctrl_c_before_the_first_stage_ends_with_130(command, recipe, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(robustok_core.runs.runner, "make_accelerator", stop)
    assert command("run", recipe()) == (130, "", "\ninterrupted\n")


# --- mistakes in a recipe -------------------------------------------------------------------------


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
def test_a_mistake_is_one_message_at_its_line(refused, recipe, path, value, line, words):
    file = recipe({path: value})
    said = refused("run", file, "--out", "out")
    assert words in said
    assert line_of(file, line) in said
    assert not Path("out").exists()


def test_all_mistakes_are_said_in_one_pass(command, recipe):
    changes = {"tokenizer.chanels": 8, "perturbation.beta": 1.5, "run.seed": "three", "data.use": "mnist"}
    code, _, said = command("check", recipe(changes))
    assert code == 2
    assert said.count("error: ") == 4


def test_check_goes_on_with_the_next_recipe(command, recipe):
    code, said, errors = command("check", "missing.toml", recipe())
    assert code == 2
    assert said.endswith("r.toml: good\n")
    assert errors.count("error: ") == 1


def test_a_patch_that_does_not_divide_the_image_is_refused(refused, recipe):
    quantizer = {"use": "vq", "codebook_size": 32, "width": 4}
    tokenizer = {"use": "vit_vq", "image_size": 32, "patch_size": 7, "width": 16, "depth": 1, "quantizer": quantizer}
    said = refused("check", recipe({"tokenizer": tokenizer}))
    assert "32" in said
    assert "7" in said


def test_a_missing_recipe_is_one_message(refused):
    assert "no recipe file or bundled recipe is called 'main_trian'\n  hint: did you mean 'main_train'?" in refused(
        "run", "main_trian"
    )


def test_a_change_without_a_value_is_one_message(refused, recipe):
    said = refused("run", recipe(), "--set", "run.seed")
    assert "KEY=VALUE" in said
    assert "run.seed" in said


@pytest.mark.parametrize("value", ["{ use = vq", '{ use = "vq" ', "[1, 2", "{use: vq}"])
def test_a_table_or_list_that_is_none_is_not_taken_for_a_word(refused, recipe, value):
    said = refused("check", recipe(), "--set", f"tokenizer.quantizer={value}")
    assert f"error: --set tokenizer.quantizer: {value!r} is not valid TOML: " in said
    assert "hint: as in --set '" in said


def test_an_unknown_name_is_said_of_the_change_that_gave_it(command, recipe):
    code, _, said = command("check", recipe(), "--set", "tokenizer.use=conv_qv", "--set", "tokenizer.width=8")
    assert code == 2
    assert said.startswith("error: --set tokenizer.use: tokenizer.use: no tokenizer is called 'conv_qv'\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 fits a CUDA device")
def test_fp16_on_a_cpu_is_refused_at_its_line(refused, recipe):
    file = recipe({"run.precision": "fp16"})
    said = refused("run", file, "--out", "out")
    assert line_of(file, "precision") + 'run.precision: "fp16" needs a CUDA device' in said


def what_a_command_sets(arguments: str, **surroundings: str) -> dict[str, str]:
    """What a fresh interpreter's environment holds, after a command, of what OpenMP reads."""
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


def test_waiting_threads_give_way_soon_unless_the_user_says_otherwise_or_torch_is_loaded():
    assert what_a_command_sets(VERSION) == {"GOMP_SPINCOUNT": "1000"}
    assert what_a_command_sets(VERSION, OMP_NUM_THREADS="1") == {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "1"}
    assert what_a_command_sets(VERSION, OMP_WAIT_POLICY="ACTIVE") == {"OMP_WAIT_POLICY": "ACTIVE"}
    assert what_a_command_sets(VERSION, GOMP_SPINCOUNT="7") == {"GOMP_SPINCOUNT": "7"}
    assert what_a_command_sets(f"import torch; {VERSION}") == {}
    assert what_a_command_sets("import robustok_core; robustok_core.run") == {}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_names_what_to_install(refused, recipe):
    said = refused("run", recipe({"run.trackers": ["wandb"]}), "--out", "out")
    assert "run.trackers: wandb is not installed\n  hint: pip install 'robustok[wandb]'" in said
    assert not Path("out").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_a_tracker_writes_into_the_run_folder_of_a_new_run(command, recipe):
    file = recipe({"run.trackers": ["tensorboard"]})
    assert command("check", file)[0] == 0
    assert not Path("runs").exists()
    code, _, said = command("run", file, "--out", "out")
    assert code == 0, said
    assert list(Path("out/tiny").rglob("events.out.tfevents*"))


# --- data -----------------------------------------------------------------------------------------


def test_a_missing_data_file_is_one_message(refused, recipe):
    said = refused("check", recipe({"data": {"use": "npz", "path": "images.npz", "image_size": 32}}))
    assert "images.npz" in said
    assert "hint: " in said


def test_an_empty_image_folder_is_one_message(refused, recipe, tmp_path):
    (tmp_path / "images").mkdir()
    said = refused("check", recipe(of_images(tmp_path / "images")))
    assert f"error: {tmp_path / 'images'}: no class folders found\n  hint: " in said


def test_a_class_with_one_image_is_named(refused, recipe, tmp_path):
    said = refused("check", recipe(of_images(write_images(tmp_path / "images", {"cat": 4, "dog": 1}))))
    assert "a class needs at least 2 training images: 'dog' (1)\n  hint: " in said


def test_a_corrupt_image_ends_the_run_with_its_name(refused, recipe, tmp_path):
    images = write_images(tmp_path / "images", {"cat": 8, "dog": 8})
    broken = images / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    said = refused("run", recipe(of_images(images)), "--out", "out", code=1)
    assert "cat/3.png: this image cannot be read: " in said
    assert "hint: repair or remove it" in said
    assert not Path("out/tiny/artifacts").exists()


# --- folders --------------------------------------------------------------------------------------


def test_an_out_folder_that_is_a_file_is_one_message(refused, recipe, tmp_path):
    (tmp_path / "out").write_text("")
    assert "error: out/tiny: cannot write: Not a directory" in refused("run", recipe(), "--out", "out", code=1)


def test_an_out_folder_without_permission_is_one_message(refused, recipe, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    file = recipe()
    monkeypatch.setattr(robustok_core.runs.folder.Path, "mkdir", refuse)
    said = refused("run", file, "--out", "out", code=1)
    assert said == "error: out/tiny: cannot write: Permission denied\n  hint: choose a folder you may write to\n"


def test_a_run_folder_without_permission_is_one_message(refused, recipe, monkeypatch):
    monkeypatch.setattr(robustok_core.runs.folder.os, "access", lambda *_: False)
    said = refused("run", recipe(), "--out", "out", code=1)
    assert said == "error: out/tiny: cannot write: Permission denied\n  hint: choose a folder you may write to\n"


def test_a_foreign_folder_is_left_alone(refused, recipe, tmp_path):
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    (tmp_path / "out" / "tiny" / "thesis.tex").write_text("mine")
    said = refused("run", recipe(), "--out", "out")
    assert "error: out/tiny: this exists and is no run folder\n  hint: choose another --out\n" in said
    assert [path.name for path in (tmp_path / "out" / "tiny").iterdir()] == ["thesis.tex"]


def test_two_commands_do_not_work_in_one_run_folder(refused, command, recipe):
    assert command("run", recipe(), "--out", "out")[0] == 0
    with FileLock("out/tiny/.lock"):
        said = refused("run", recipe(), "--out", "out")
    assert "error: out/tiny: another command works in this folder\n  hint: wait for it" in said
    assert command("run", recipe(), "--out", "out")[0] == 0


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half(held: object, file: Path) -> None:
    Path(file).write_bytes(b"half")
    full()


@pytest.mark.parametrize(("name", "broken"), [("save_file", half), ("_flush", full)])
def test_a_full_disk_ends_the_run_with_1_and_leaves_nothing_half_written(
    refused, command, recipe, monkeypatch, name, broken
):
    with monkeypatch.context() as patched:
        patched.setattr(robustok_core.runs.files, name, broken)
        said = refused("run", recipe(epochs=2), "--out", "out", code=1)
    assert "cannot write: No space left on device\n  hint: free some space and run again\n" in said
    out = Path("out/tiny")
    assert leftovers(out) == []
    assert list(out.glob("artifacts/*")) == list(out.glob("checkpoints/*/*")) == []
    code, _, said = command("run", recipe(epochs=2), "--out", "out")
    assert code == 0, said


# --- plugins --------------------------------------------------------------------------------------


@frozen(kw_only=True)
class EmptyConfig:
    """No options."""


class Mine(Perturbation):
    """A perturbation that has the name of another."""

    Config = EmptyConfig

    def perturb(self, latents, quantizer, *, draws, progress):  # pragma: no cover
        raise AssertionError


class Plugin:
    """A third party's plugin that takes a name which is in use."""

    @hookimpl
    def robustok_register(self, register):
        register("perturbation", "top_delta", Mine)


def test_a_name_that_two_plugins_provide_is_refused_naming_both(refused, recipe, monkeypatch):
    registry = load_registry()
    registry.add_plugin(Plugin(), "mine", "robustok-mine")
    monkeypatch.setattr(robustok_core.recipe.registry, "load_registry", lambda: registry)
    said = refused("check", recipe())
    assert "perturbation 'top_delta' is provided by two plugins, 'robustok_perturbations' and 'mine'" in said
    assert "hint: uninstall or rename one" in said
    assert "two plugins" in refused("plugins", "perturbation", "top_delta")


def test_plugins_lists_every_component_below_its_kind_with_what_it_is_and_every_plugin_with_its_distribution(
    command, registry
):
    code, said, _ = command("plugins")
    assert code == 0
    components, packages = said.split("\nfrom\n")
    kinds = dict.fromkeys(entry.kind for entry in registry.entries())
    expected = [line for kind in kinds for line in (kind, *(f"  {name}" for name in registry.names(kind)))]
    lines = components.splitlines()
    assert [re.match(r" *\w+", line)[0] for line in lines] == expected
    assert all(re.fullmatch(r"  \w+ +.{20,}  \[\w+\]", line) for line in lines if line.startswith(" "))
    assert re.search(r"^  robustok_perturbations +robustok$", packages, re.MULTILINE)
    assert "not in use" not in said


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12345.678, 4, "12,346"),
        (999.96, 4, "1000"),
        (1381504.0, 6, "1,381,504"),
        (-2500.5, 4, "-2,500"),
        (0.000123456, 4, "0.0001235"),
        (405.26789, 6, "405.268"),
        (0.0, 4, "0"),
        (float("nan"), 4, "nan"),
        (float("inf"), 4, "inf"),
        (1e300, 4, "1e+300"),
    ],
)
def test_numbers_for_people_have_all_digits_before_the_point(value, digits, text):
    assert number_text(value, digits) == text


def test_every_bundled_recipe_is_listed_with_its_first_line(command):
    code, said, _ = command("recipes")
    assert code == 0
    listed = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert set(listed) == set(bundled_recipes())
    for name, file in bundled_recipes().items():
        assert listed[name].removesuffix(" ...") in file.read_text().splitlines()[0]
    assert "RobusTok" in listed["imagenet256/robustok_tokenizer"]


def test_until_leaves_out_the_stages_behind_one_and_they_follow_when_the_run_goes_on_by_its_folder(command, recipe):
    file = recipe()
    with file.open("a") as opened:
        opened.write('[[stage]]\nuse = "evaluate_tokenizer"\nlimit = 20\nmetrics = { psnr = { use = "psnr" } }\n')
    assert command("run", file, "--out", "out", "--until", "train_tokenizer")[0] == 0
    assert list(json.loads(Path("out/tiny/run.json").read_text())["current"]) == ["train_tokenizer"]
    assert "evaluate_tokenizer" not in Path("out/tiny/recipe.toml").read_text()
    code, said, _ = command("run", file, "--out", "out")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in said
    assert "evaluate_tokenizer/psnr" in said


def test_until_names_a_stage_of_the_recipe(refused, recipe):
    said = refused("run", recipe(), "--out", "out", "--until", "train_tokeniser")
    assert "--until: no stage is called 'train_tokeniser'\n  hint: did you mean 'train_tokenizer'?" in said
    assert not Path("out").exists()


def test_a_runs_folder_goes_on_with_its_own_recipe_wherever_it_lies_now(command, recipe):
    assert command("run", recipe(), "--out", "out")[0] == 0
    Path("out/tiny").rename("moved")
    results = Path("moved/results.json").read_text()
    code, said, _ = command("run", "moved")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in said
    assert Path("moved/results.json").read_text() == results
    assert command("run", "moved", "--set", "stage.train_tokenizer.epochs=2", "--set", "run.name=other")[0] == 0
    assert Path("other/results.json").exists()
    assert Path("moved/results.json").read_text() == results


def test_the_help_of_run_begins_with_an_example_that_can_be_run(command):
    _, said, _ = command("run", "--help")
    example = re.search(r"Example: `robustok (run [^`]+)`", " ".join(said[:400].split()))
    assert command("check", *example[1].split()[1:])[0] == 0


def test_plugins_of_a_kind_are_listed_with_one_line_each(command, registry):
    code, said, _ = command("plugins", "metric")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == registry.names("metric")
    assert all(
        len(line.split(maxsplit=1)[1]) > 30 and line.endswith("[robustok_metrics]") for line in said.splitlines()
    )


def test_the_options_of_a_component_are_shown_with_type_default_and_meaning(command):
    code, said, _ = command("plugins", "stage", "train_tokenizer")
    assert code == 0
    assert "stage train_tokenizer, from robustok_stages" in said
    assert "  epochs (float, required): passes over the training images\n" in said
    assert "  log_every (int, default 20): steps between lines of metrics.jsonl\n" in said
    assert "  losses (a loss, default {'reconstruction': {'use': 'reconstruction'}}): the terms of the loss" in said
    assert re.search(r"\n  optimizer \(table, .*\n      \w+ \(", said), "the options of a table are indented below it"


def test_every_option_of_every_component_is_shown_with_its_meaning(command, registry):
    for entry in registry.entries():
        code, said, _ = command("plugins", entry.kind, entry.name)
        assert code == 0
        options = said.split("\noptions:\n")[1].split("\n\noptions of its sampler (`sampling` in stages):\n")
        assert (len(options) == 2) == (entry.kind == "generator")
        options = [line for part in options for line in part.splitlines()]
        assert all(re.fullmatch(r" +\w+ \(.+\): .+", line) for line in options), (entry.kind, entry.name, options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["metrics"], "no kind is called 'metrics'\n  hint: did you mean 'metric'?"),
        (["metric", "pfd"], "no metric is called 'pfd'\n  hint: did you mean 'pfid'?"),
    ],
)
def test_a_misspelt_kind_or_name_gets_a_hint(refused, arguments, words):
    assert words in refused("plugins", *arguments)


def test_check_show_prints_a_recipe_with_every_default(command, recipe):
    code, said, _ = command("check", recipe(), "--show", "--set", "perturbation.delta=2")
    assert code == 0
    shown = tomli.loads(said)
    assert shown["perturbation"]["delta"] == 2
    assert shown["stage"][0]["optimizer"]["betas"] == [0.9, 0.95]


# --- published checkpoints ------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path) -> Path:
    """A small tokenizer in the published layout."""
    weights = {name[2:]: value for name, value in load_file(PARITY).items() if name.startswith("w.")}
    save_file(weights, tmp_path / "published.safetensors")
    return tmp_path / "published.safetensors"


def test_import_and_export_are_inverse(command, published):
    code, said, errors = command("import", "robustok", published, "imported", "--set", "num_heads=2")
    assert code == 0, errors
    assert said.endswith("written to imported\n")
    assert command("export", "robustok", "imported", "again.safetensors")[0] == 0
    first, second = load_file(published), load_file("again.safetensors")
    assert first.keys() == second.keys()
    hits = first.pop("quantize.ema_vocab_hit_SV")
    torch.testing.assert_close(second["quantize.ema_vocab_hit_SV"], hits / hits.sum())
    assert all(torch.equal(second[name], value) for name, value in first.items())


@pytest.mark.parametrize(
    "arguments", [["import", "robustok", "published.safetensors"], ["export", "robustok", "there"]]
)
def test_import_and_export_overwrite_nothing(refused, published, tmp_path, arguments):
    (tmp_path / "there").mkdir()
    said = refused(*arguments, "there")
    assert "error: there: this exists already\n  hint: nothing is overwritten: name a new f" in said


def test_a_full_disk_leaves_no_half_exported_file(refused, command, published, monkeypatch):
    assert command("import", "robustok", published, "imported", "--set", "num_heads=2")[0] == 0
    monkeypatch.setattr(robustok_core.runs.files, "save_file", half)
    said = refused("export", "robustok", "imported", "again.safetensors", code=1)
    assert "error: again.safetensors: cannot write: No space left on device" in said
    assert not Path("again.safetensors").exists()
    assert leftovers(Path()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "robustok", "no.pt", "out"], "error: no.pt: there is no such file"),
        (["import", "robustokk", "published.safetensors", "out"], "hint: did you mean 'robustok'?"),
        (["import", "robustok", "published.safetensors", "out", "--set", "heads=2"], "unknown key 'heads'"),
        (["export", "robustok", "nowhere", "out"], "error: nowhere: there is no such run or artifact"),
        (["export", "robustok", ".", "out"], "error: .: this is no run folder"),
    ],
)
def test_mistakes_of_import_and_export_are_one_message(refused, published, arguments, words):
    assert words in refused(*arguments)
    assert not Path("out").exists()
