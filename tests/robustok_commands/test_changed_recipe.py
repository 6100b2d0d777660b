"""A recipe that is changed, and changed back, under one name: the folder names only what its current recipe made."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from project import POST_TRAINING, TO_SAMPLES, Project, recipe_of, registry_with
from robustok_core import RobustokError, hookimpl, load_registry
from robustok_core.cli import main
from robustok_core.errors import Interrupted
from robustok_core.runs.files import read_json
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.run_record import write_run
from robustok_core.values.images import to_uint8
from robustok_toolkit.trained import artifact_of

Table = dict[str, Any]
#: What a command wrote: arrays by name.
Written = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def recipes() -> tuple[Table, Table]:
    """Two recipes of one name, whose tokenizers learn at different rates; a published format holds them."""
    first = recipe_of(TO_SAMPLES, train_generator={"epochs": 1}, sample={"num_samples": 10})
    first["stage"][0]["log_every"] = 1
    first["tokenizer"] |= {"stem_patch": 1, "channel_multipliers": [1, 1, 1], "attention": True}
    second = copy.deepcopy(first)
    second["stage"][0]["optimizer"]["learning_rate"] = 1e-4
    return first, second


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of four images."""
    images = load_registry().build("dataset", {"use": "fashion_mnist"}).validation.load(range(4)).images
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(to_uint8(images).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def use(photos, tmp_path) -> dict[str, Callable[[Path], Written]]:
    """Everything that takes a component from a run's folder, by name; each gives what came out."""

    def command(name: str, run: Path, *arguments: Any) -> None:
        with pytest.raises(SystemExit) as ended:
            main([name, *map(str, arguments if name == "export" else (run, *arguments))])
        if ended.value.code:
            raise RobustokError(f"exit code {ended.value.code}")

    def arrays(file: Path) -> Written:
        with np.load(file) as content:
            contents = {name: content[name] for name in content.files}
        file.unlink()
        return contents

    def encode(folder: Path) -> Written:
        command("encode", folder, photos, "--out", tmp_path / "codes.npz")
        return arrays(tmp_path / "codes.npz")

    def decode(folder: Path) -> Written:
        np.save(tmp_path / "codes.npy", np.arange(128).reshape(2, 64) % 32)
        out = tmp_path / "drawn.png"
        command("decode", folder, tmp_path / "codes.npy", "--out", out)
        picture = np.asarray(Image.open(out))
        out.unlink()
        return {"picture": picture}

    def sample(folder: Path) -> Written:
        command("sample", folder, "--count", 4, "--out", tmp_path / "samples.npz")
        return arrays(tmp_path / "samples.npz")

    def export(folder: Path) -> Written:
        out = tmp_path / "published.safetensors"
        command("export", folder, "llamagen_vq", folder, out)
        tensors = load_file(out)
        out.unlink()
        return tensors

    def load(folder: Path) -> Written:
        stage = {"use": "evaluate_tokenizer", "limit": 20, "metrics": {"psnr": {"use": "psnr"}}}
        project = Project(tmp_path / "loaded", [stage], load={"tokenizer": folder}).run(fresh=True)
        return {name: np.array(result.value) for name, result in project.results.items()}

    return {"encode": encode, "decode": decode, "sample": sample, "export": export, "load": load}


@pytest.fixture(scope="module")
def alone(recipes, tmp_path_factory) -> list[Path]:
    """Each recipe in a folder that no other was run in."""
    return [Project.of(table, tmp_path_factory.mktemp("alone")).run().folder for table in recipes]


@pytest.fixture
def assert_as(use, alone) -> Callable[[Path, int], None]:
    """Fails where something makes anything else of a folder than of one in which only this recipe was run."""

    def assert_as(folder: Path, number: int) -> None:
        for name, way in use.items():
            found, expected, other = way(folder), way(alone[number]), way(alone[1 - number])
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[key], expected[key]) for key in found), name
            assert any(not np.array_equal(other[key], expected[key]) for key in found), f"{name} tells nothing"
        for file in ("recipe.toml", "results.json"):
            assert (folder / file).read_text() == (alone[number] / file).read_text()
        assert read_json(folder / "run.json")["current"] == read_json(alone[number] / "run.json")["current"]

    return assert_as


class StopAt:
    """A plugin that stops the run in the first step of a stage, as Ctrl-C does."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    @hookimpl
    def robustok_step_logged(self, stage: str, step: int) -> None:
        if stage == self.stage and step == 1:
            os.kill(os.getpid(), signal.SIGINT)


def go(table: Table, out: Path, stop_at: str | None = None) -> Path:
    project = Project.of(table, out)
    if stop_at is None:
        return project.run().folder
    with pytest.raises(Interrupted):
        project.run(registry=registry_with(StopAt(stop_at)))
    return project.folder


def test_a_recipe_that_was_changed_and_changed_back_has_its_own_components_again(recipes, assert_as, tmp_path):
    first, second = recipes
    assert_as(go(first, tmp_path), 0)
    assert_as(go(second, tmp_path), 1)
    assert_as(go(first, tmp_path), 0)
    assert_as(go(second, tmp_path), 1)


@pytest.mark.parametrize("stage", ["train_tokenizer", "train_generator"])
def test_an_interrupted_change_names_nothing_of_the_recipe_before_and_takes_nothing_from_it(
    recipes, assert_as, use, tmp_path, stage
):
    first, second = recipes
    folder = go(first, tmp_path)
    go(second, tmp_path, stop_at=stage)
    assert not (folder / "results.json").exists()
    unfinished = set(use) if stage == "train_tokenizer" else {"sample"}
    for name in unfinished:
        with pytest.raises(RobustokError):
            use[name](folder)
    assert_as(go(first, tmp_path), 0)


class KilledAt:
    """Kills this process at the n-th renaming of a file from now on, before or after it."""

    def __init__(self, number: int, *, after: bool) -> None:
        self.left, self.after = number, after
        for name in ("rename", "replace"):
            setattr(Path, name, self.counting(getattr(Path, name)))

    def counting(self, real: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def renamed(source: Path, target: Path) -> Path:
            self.left -= 1
            if self.left == 0 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(source, target)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return renamed


def killed(table: Table, out: Path, number: int, *, after: bool) -> bool:
    """Runs a recipe in a process that is killed at a renaming; False where it ended before."""

    def go_until_killed() -> None:
        KilledAt(number, after=after)
        Project.of(table, out).run()

    process = multiprocessing.get_context("fork").Process(target=go_until_killed)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_while_a_folder_changes_its_recipe_never_leaves_components_of_another(
    recipes, alone, use, tmp_path, after
):
    """Both recipes were run to their end in this folder, so either one's tokenizer is there to be mistaken."""
    first, second = recipes
    prepared = tmp_path / "prepared"
    go(first, prepared)
    go(second, prepared)
    codes = [use["encode"](folder)["codes"] for folder in alone]
    texts = {name: [(folder / name).read_text() for folder in alone] for name in ("recipe.toml", "results.json")}
    for number in itertools.count(1):
        folder = shutil.copytree(prepared, tmp_path / str(number)) / "tiny"
        if not killed(first, folder.parent, number, after=after):
            break
        held = {name: (folder / name).read_text() for name in texts if (folder / name).exists()}
        try:
            encoded = use["encode"](folder)["codes"]
        except RobustokError:
            encoded = None
        owners = {text.index(held[name]) for name, text in texts.items() if name in held}
        owners |= {number for number in (0, 1) if encoded is not None and np.array_equal(encoded, codes[number])}
        assert len(owners) <= 1, f"killed at renaming {number}: {sorted(held)}, tokenizer {encoded is not None}"
        go(first, folder.parent)
        np.testing.assert_array_equal(use["encode"](folder)["codes"], codes[0])
        assert (folder / "results.json").read_text() == texts["results.json"][0]
        kept = {file.read_text() for file in (folder / "history").glob("re*")}
        assert {*texts["recipe.toml"], *texts["results.json"]} <= kept | {texts["recipe.toml"][0]} | {
            texts["results.json"][0]
        }
    assert number > 6, "too few renamings: this test kills none of them"


def test_a_folder_whose_recipe_makes_a_tokenizer_twice_has_the_last_one_or_says_that_it_is_unfinished(tmp_path):
    table = recipe_of(
        (*TO_SAMPLES, *POST_TRAINING),
        train_generator={"epochs": 1},
        compare_decoders={"limit": 20, "keep": 0.5, "metrics": {}, "tokenizer_metrics": {}},
    )
    folder = go(table, tmp_path)
    done = find_artifact(folder, "tokenizer")
    assert "post_trained" in read_json(done / "component.json")
    changed = copy.deepcopy(table)
    changed["stage"][-2]["optimizer"] = {"learning_rate": 1e-5}
    go(changed, tmp_path, stop_at="post_train")
    with pytest.raises(RobustokError, match="this run has no finished tokenizer") as caught:
        find_artifact(folder, "tokenizer")
    before = Path(caught.value.hint.rpartition(": ")[2])
    assert read_json(before / "component.json")["kind"] == "tokenizer"
    assert "post_trained" not in read_json(before / "component.json")
    assert find_artifact(folder, "generator").is_dir()
    go(table, tmp_path)
    assert find_artifact(folder, "tokenizer") == done


@pytest.mark.parametrize("path", ["tiny", "tiny/artifacts/{}", "other/../tiny"])
def test_a_recipe_that_loads_from_its_own_folder_is_refused(recipes, alone, tmp_path, monkeypatch, path):
    """It would take what it made itself, and begin with something else each time."""
    shutil.copytree(alone[0].parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "tiny" / "run.json").read_text()
    table = copy.deepcopy(recipes[0])
    table["load"] = {"tokenizer": path.format(find_artifact(Path("tiny"), "tokenizer").name)}
    table["stage"] = table["stage"][1:]
    with pytest.raises(RobustokError, match=r"\[load\] tokenizer: .* the folder of the run itself") as caught:
        Project.of(table, tmp_path).run()
    assert caught.value.hint == "give this run another name: --set run.name=NAME"
    assert (tmp_path / "tiny" / "run.json").read_text() == before
    table["run"]["name"] = "another"
    go(table, tmp_path)


def test_an_artifact_of_an_earlier_recipe_is_not_used_with_a_tokenizer_of_the_current_one(
    recipes, alone, tmp_path, photos, capsys
):
    folder = shutil.copytree(alone[0].parent, tmp_path / "runs") / "tiny"
    generator = find_artifact(folder, "generator")
    arguments = ["encode", str(generator), str(photos), "--out", str(tmp_path / "codes.npz")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    (tmp_path / "codes.npz").unlink()
    go(recipes[1], folder.parent)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "this generator does not belong to the current recipe of" in capsys.readouterr().err
    go(recipes[0], folder.parent)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_an_artifact_that_load_gave_is_of_the_recipe_that_loaded_it(recipes, alone, tmp_path):
    table = copy.deepcopy(recipes[0])
    table["load"] = {"tokenizer": str(alone[0])}
    table["stage"] = [stage for stage in table["stage"] if stage["use"] in ("tokenize", "train_generator")]
    folder = go(table, tmp_path)
    loaded = find_artifact(folder, "tokenizer")
    shutil.copytree(loaded, folder / "artifacts" / "tokenizer-imported")  # where an importer's would lie
    record = read_json(folder / "run.json")
    record["inputs"]["tokenizer"] = str((folder / "artifacts" / "tokenizer-imported").resolve())
    write_run(folder, record)
    assert artifact_of(folder / "artifacts" / "tokenizer-imported", "generator") == find_artifact(folder, "generator")


def test_an_old_record_of_the_last_commands_versions_is_removed(recipes, alone, tmp_path):
    """The old record held the versions of the last command for all stages; now each stage records its own."""
    folder = shutil.copytree(alone[0].parent, tmp_path / "old") / "tiny"
    write_run(folder, {**read_json(folder / "run.json"), "torch": "1.0", "processes": 8, "current": {}})
    go(recipes[0], tmp_path / "old")
    record = read_json(folder / "run.json")
    assert {"torch", "processes"}.isdisjoint(record)
    made = [entry["made_with"] for entry in record["stages"].values()]
    assert {one["torch"] for (one,) in made} == {torch.__version__}
