"""The command line: one message with its location and a hint, the right exit code, never a traceback."""

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
    """Runs the command in its own folder; returns exit code, standard output and standard error."""
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
def recipe(tiny_recipe, tmp_path):
    """Writes the tiny recipe as TOML, with keys changed by dotted path."""

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
    """Class folders of random images, under train/ and val/."""
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


def test_a_run_exits_with_0_and_prints_results_and_a_second_run_skips_it(command, recipe):
    code, output, _ = command("run", recipe(), "--out", "out")
    assert code == 0
    assert re.search(r"train_tokenizer/steps +5\b", output)
    code, output, _ = command("run", recipe(), "--out", "out")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in output


def test_an_interrupted_run_exits_with_130_and_says_how_to_resume(refused, recipe, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robustok_training.trainer.Trainer._step", stop)
    output = refused("run", recipe(), "--out", "out", code=130)
    assert "stopped in stage 'train_tokenizer'" in output
    assert "hint: the same command starts this stage again: out/tiny" in output


def test_ctrl_c_before_the_first_stage_exits_with_130(command, recipe, monkeypatch):
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
def test_a_mistake_is_one_message_with_its_line(refused, recipe, path, value, line, words):
    file = recipe({path: value})
    output = refused("run", file, "--out", "out")
    assert words in output
    assert line_of(file, line) in output
    assert not Path("out").exists()


def test_all_mistakes_are_reported_in_one_pass(command, recipe):
    changes = {"tokenizer.chanels": 8, "perturbation.beta": 1.5, "run.seed": "three", "data.use": "mnist"}
    code, _, output = command("check", recipe(changes))
    assert code == 2
    assert output.count("error: ") == 4


def test_check_continues_with_the_next_recipe(command, recipe):
    code, output, errors = command("check", "missing.toml", recipe())
    assert code == 2
    assert output.endswith("r.toml: good\n")
    assert errors.count("error: ") == 1


def test_a_patch_that_does_not_divide_the_image_is_refused(refused, recipe):
    quantizer = {"use": "vq", "codebook_size": 32, "width": 4}
    tokenizer = {"use": "vit_vq", "image_size": 32, "patch_size": 7, "width": 16, "depth": 1, "quantizer": quantizer}
    output = refused("check", recipe({"tokenizer": tokenizer}))
    assert "32" in output
    assert "7" in output


def test_a_missing_recipe_is_one_message(refused):
    assert "no recipe file or bundled recipe is called 'main_trian'\n  hint: did you mean 'main_train'?" in refused(
        "run", "main_trian"
    )


def test_a_change_without_a_value_is_one_message(refused, recipe):
    output = refused("run", recipe(), "--set", "run.seed")
    assert "KEY=VALUE" in output
    assert "run.seed" in output


@pytest.mark.parametrize("value", ["{ use = vq", '{ use = "vq" ', "[1, 2", "{use: vq}"])
def test_an_invalid_table_or_list_is_not_read_as_a_string(refused, recipe, value):
    output = refused("check", recipe(), "--set", f"tokenizer.quantizer={value}")
    assert f"error: --set tokenizer.quantizer: {value!r} is not valid TOML: " in output
    assert "hint: as in --set '" in output


def test_an_unknown_name_is_located_at_the_override_that_set_it(command, recipe):
    code, _, output = command("check", recipe(), "--set", "tokenizer.use=conv_qv", "--set", "tokenizer.width=8")
    assert code == 2
    assert output.startswith("error: --set tokenizer.use: tokenizer.use: no tokenizer is called 'conv_qv'\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 fits a CUDA device")
def test_fp16_on_a_cpu_is_refused_with_its_line(refused, recipe):
    file = recipe({"run.precision": "fp16"})
    output = refused("run", file, "--out", "out")
    assert line_of(file, "precision") + 'run.precision: "fp16" needs a CUDA device' in output


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


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_the_error_of_a_missing_tracker_says_what_to_install(refused, recipe):
    output = refused("run", recipe({"run.trackers": ["wandb"]}), "--out", "out")
    assert "run.trackers: wandb is not installed\n  hint: pip install 'robustok[wandb]'" in output
    assert not Path("out").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_a_tracker_writes_into_the_run_folder_of_a_new_run(command, recipe):
    file = recipe({"run.trackers": ["tensorboard"]})
    assert command("check", file)[0] == 0
    assert not Path("runs").exists()
    code, _, output = command("run", file, "--out", "out")
    assert code == 0, output
    assert list(Path("out/tiny").rglob("events.out.tfevents*"))


# --- data -----------------------------------------------------------------------------------------


def test_a_missing_data_file_is_one_message(refused, recipe):
    output = refused("check", recipe({"data": {"use": "npz", "path": "images.npz", "image_size": 32}}))
    assert "images.npz" in output
    assert "hint: " in output


def test_an_empty_image_folder_is_one_message(refused, recipe, tmp_path):
    (tmp_path / "images").mkdir()
    output = refused("check", recipe(of_images(tmp_path / "images")))
    assert f"error: {tmp_path / 'images'}: no class folders found\n  hint: " in output


def test_a_class_with_one_image_is_named(refused, recipe, tmp_path):
    output = refused("check", recipe(of_images(write_images(tmp_path / "images", {"cat": 4, "dog": 1}))))
    assert "a class needs at least 2 training images: 'dog' (1)\n  hint: " in output


def test_a_corrupt_image_stops_the_run_and_is_named(refused, recipe, tmp_path):
    images = write_images(tmp_path / "images", {"cat": 8, "dog": 8})
    broken = images / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    output = refused("run", recipe(of_images(images)), "--out", "out", code=1)
    assert "cat/3.png: this image cannot be read: " in output
    assert "hint: repair or remove it" in output
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
    output = refused("run", file, "--out", "out", code=1)
    assert output == "error: out/tiny: cannot write: Permission denied\n  hint: choose a folder you may write to\n"


def test_a_run_folder_without_permission_is_one_message(refused, recipe, monkeypatch):
    monkeypatch.setattr(robustok_core.runs.folder.os, "access", lambda *_: False)
    output = refused("run", recipe(), "--out", "out", code=1)
    assert output == "error: out/tiny: cannot write: Permission denied\n  hint: choose a folder you may write to\n"


def test_a_folder_that_is_not_a_run_is_left_alone(refused, recipe, tmp_path):
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    (tmp_path / "out" / "tiny" / "thesis.tex").write_text("mine")
    output = refused("run", recipe(), "--out", "out")
    assert "error: out/tiny: this exists and is not a run folder\n  hint: choose another --out\n" in output
    assert [path.name for path in (tmp_path / "out" / "tiny").iterdir()] == ["thesis.tex"]


def test_two_commands_cannot_use_one_run_folder(refused, command, recipe):
    assert command("run", recipe(), "--out", "out")[0] == 0
    with FileLock("out/tiny/.lock"):
        output = refused("run", recipe(), "--out", "out")
    assert "error: out/tiny: another command is using this folder\n  hint: wait for it" in output
    assert command("run", recipe(), "--out", "out")[0] == 0


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half(held: object, file: Path) -> None:
    Path(file).write_bytes(b"half")
    full()


@pytest.mark.parametrize(("name", "broken"), [("save_file", half), ("_flush", full)])
def test_a_full_disk_exits_with_1_and_leaves_no_partial_files(refused, command, recipe, monkeypatch, name, broken):
    with monkeypatch.context() as patched:
        patched.setattr(robustok_core.runs.files, name, broken)
        output = refused("run", recipe(epochs=2), "--out", "out", code=1)
    assert "cannot write: No space left on device\n  hint: free some space and run again\n" in output
    out = Path("out/tiny")
    assert leftovers(out) == []
    assert list(out.glob("artifacts/*")) == list(out.glob("checkpoints/*/*")) == []
    code, _, output = command("run", recipe(epochs=2), "--out", "out")
    assert code == 0, output


# --- plugins --------------------------------------------------------------------------------------


@frozen(kw_only=True)
class EmptyConfig:
    """No options."""


class Mine(Perturbation):
    """A perturbation with the name of another."""

    Config = EmptyConfig

    def perturb(self, latents, quantizer, *, draws, progress):  # pragma: no cover
        raise AssertionError


class Plugin:
    """A third-party plugin that registers a name already in use."""

    @hookimpl
    def robustok_register(self, register):
        register("perturbation", "top_delta", Mine)


def test_a_name_that_two_plugins_provide_is_refused_naming_both(refused, recipe, monkeypatch):
    registry = load_registry()
    registry.add_plugin(Plugin(), "mine", "robustok-mine")
    monkeypatch.setattr(robustok_core.recipe.registry, "load_registry", lambda: registry)
    output = refused("check", recipe())
    assert "perturbation 'top_delta' is provided by two plugins, 'robustok_perturbations' and 'mine'" in output
    assert "hint: uninstall or rename one" in output
    assert "two plugins" in refused("plugins", "perturbation", "top_delta")


def test_plugins_lists_every_component_by_kind_with_its_description_and_every_plugin_with_its_distribution(
    command, registry
):
    code, output, _ = command("plugins")
    assert code == 0
    components, packages = output.split("\nfrom\n")
    kinds = dict.fromkeys(entry.kind for entry in registry.entries())
    expected = [line for kind in kinds for line in (kind, *(f"  {name}" for name in registry.names(kind)))]
    lines = components.splitlines()
    assert [re.match(r" *\w+", line)[0] for line in lines] == expected
    assert all(re.fullmatch(r"  \w+ +.{20,}  \[\w+\]", line) for line in lines if line.startswith(" "))
    assert re.search(r"^  robustok_perturbations +robustok$", packages, re.MULTILINE)
    assert "not in use" not in output


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
def test_numbers_show_all_digits_before_the_point(value, digits, text):
    assert number_text(value, digits) == text


def test_every_bundled_recipe_is_listed_with_its_first_line(command):
    code, output, _ = command("recipes")
    assert code == 0
    listed = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert set(listed) == set(bundled_recipes())
    for name, file in bundled_recipes().items():
        assert listed[name].removesuffix(" ...") in file.read_text().splitlines()[0]
    assert "RobusTok" in listed["imagenet256/robustok_tokenizer"]


def test_until_stops_after_a_stage_and_running_the_folder_runs_the_rest(command, recipe):
    file = recipe()
    with file.open("a") as opened:
        opened.write('[[stage]]\nuse = "evaluate_tokenizer"\nlimit = 20\nmetrics = { psnr = { use = "psnr" } }\n')
    assert command("run", file, "--out", "out", "--until", "train_tokenizer")[0] == 0
    assert list(json.loads(Path("out/tiny/run.json").read_text())["current"]) == ["train_tokenizer"]
    assert "evaluate_tokenizer" not in Path("out/tiny/recipe.toml").read_text()
    code, output, _ = command("run", file, "--out", "out")
    assert code == 0
    assert "train_tokenizer: done before, unchanged" in output
    assert "evaluate_tokenizer/psnr" in output


def test_until_must_name_a_stage_of_the_recipe(refused, recipe):
    output = refused("run", recipe(), "--out", "out", "--until", "train_tokeniser")
    assert "--until: no stage is called 'train_tokeniser'\n  hint: did you mean 'train_tokenizer'?" in output
    assert not Path("out").exists()


def test_a_run_folder_resumes_with_its_own_recipe_after_it_is_moved(command, recipe):
    assert command("run", recipe(), "--out", "out")[0] == 0
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


def test_plugins_of_a_kind_are_listed_with_one_line_each(command, registry):
    code, output, _ = command("plugins", "metric")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == registry.names("metric")
    assert all(
        len(line.split(maxsplit=1)[1]) > 30 and line.endswith("[robustok_metrics]") for line in output.splitlines()
    )


def test_the_options_of_a_component_are_shown_with_type_default_and_meaning(command):
    code, output, _ = command("plugins", "stage", "train_tokenizer")
    assert code == 0
    assert "stage train_tokenizer, from robustok_stages" in output
    assert "  epochs (float, required): passes over the training images\n" in output
    assert "  log_every (int, default 20): steps between lines of metrics.jsonl\n" in output
    assert "  losses (a loss, default {'reconstruction': {'use': 'reconstruction'}}): the terms of the loss" in output
    assert re.search(r"\n  optimizer \(table, .*\n      \w+ \(", output), "the options of a table are indented below it"


def test_every_option_of_every_component_is_shown_with_its_meaning(command, registry):
    for entry in registry.entries():
        code, output, _ = command("plugins", entry.kind, entry.name)
        assert code == 0
        options = output.split("\noptions:\n")[1].split("\n\noptions of its sampler (`sampling` in stages):\n")
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
    code, output, _ = command("check", recipe(), "--show", "--set", "perturbation.delta=2")
    assert code == 0
    shown = tomli.loads(output)
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
    code, output, errors = command("import", "robustok", published, "imported", "--set", "num_heads=2")
    assert code == 0, errors
    assert output.endswith("written to imported\n")
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
    output = refused(*arguments, "there")
    assert "error: there: this already exists\n  hint: nothing is overwritten: name a new f" in output


def test_a_full_disk_leaves_no_half_exported_file(refused, command, published, monkeypatch):
    assert command("import", "robustok", published, "imported", "--set", "num_heads=2")[0] == 0
    monkeypatch.setattr(robustok_core.runs.files, "save_file", half)
    output = refused("export", "robustok", "imported", "again.safetensors", code=1)
    assert "error: again.safetensors: cannot write: No space left on device" in output
    assert not Path("again.safetensors").exists()
    assert leftovers(Path()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "robustok", "no.pt", "out"], "error: no.pt: there is no such file"),
        (["import", "robustokk", "published.safetensors", "out"], "hint: did you mean 'robustok'?"),
        (["import", "robustok", "published.safetensors", "out", "--set", "heads=2"], "unknown key 'heads'"),
        (["export", "robustok", "nowhere", "out"], "error: nowhere: there is no such run or artifact"),
        (["export", "robustok", ".", "out"], "error: .: this is not a run folder"),
    ],
)
def test_mistakes_of_import_and_export_are_one_message(refused, published, arguments, words):
    assert words in refused(*arguments)
    assert not Path("out").exists()
