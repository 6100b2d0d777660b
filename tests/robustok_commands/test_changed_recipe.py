"""A recipe that is changed, and changed back, under one name: the folder names what its own recipe made alone."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from robustok_core import Recipe, RobustokError, hookimpl, load_registry, run
from robustok_core.artifacts import RunFolder
from robustok_core.cli import main
from robustok_core.errors import Interrupted
from robustok_core.files import read_json
from robustok_core.images import to_uint8

Table = dict[str, Any]
#: What a command wrote: arrays by name.
Written = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def recipes(generation_recipe) -> tuple[Table, Table]:
    """Two recipes of one name, whose tokenizers learn at different rates; a published format holds them."""
    first = generation_recipe(train_generator={"epochs": 1}, sample={"num_samples": 10})
    first["stage"][0]["log_every"] = 1
    first["tokenizer"] |= {"stem_patch": 1, "channel_multipliers": [1, 1, 1], "attention": True}
    second = copy.deepcopy(first)
    second["stage"][0]["optimizer"]["learning_rate"] = 1e-4
    return first, second


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of four pictures."""
    images = load_registry().build("dataset", {"use": "fashion_mnist"}).validation.load(range(4)).images
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(to_uint8(images).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def use(photos, tmp_path, generation_recipe) -> dict[str, Callable[[Path], Written]]:
    """Everything that takes a component from a run's folder, by name; each gives what came out."""

    def command(name: str, run: Path, *arguments: Any) -> None:
        with pytest.raises(SystemExit) as ended:
            main([name, *map(str, arguments if name == "export" else (run, *arguments))])
        if ended.value.code:
            raise RobustokError(f"exit code {ended.value.code}")

    def arrays(file: Path) -> Written:
        with np.load(file) as held:
            found = {name: held[name] for name in held.files}
        file.unlink()
        return found

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
        found = load_file(out)
        out.unlink()
        return found

    def load(folder: Path) -> Written:
        table = {name: part for name, part in generation_recipe().items() if name in ("run", "data")}
        table["load"] = {"tokenizer": str(folder)}
        table["stage"] = [{"use": "evaluate_tokenizer", "limit": 20, "metrics": {"psnr": {"use": "psnr"}}}]
        results = run(Recipe.from_table(table), out=tmp_path / "loaded", fresh=True)
        return {name: np.array(value) for name, value in results.items()}

    return {"encode": encode, "decode": decode, "sample": sample, "export": export, "load": load}


@pytest.fixture(scope="module")
def alone(recipes, tmp_path_factory) -> list[Path]:
    """Each recipe in a folder that no other was run in."""
    outs = [tmp_path_factory.mktemp("alone") for _ in recipes]
    for table, out in zip(recipes, outs, strict=True):
        run(Recipe.from_table(table), out=out)
    return [out / "tiny" for out in outs]


@pytest.fixture
def assert_as(use, alone) -> Callable[[Path, int], None]:
    """Fails where anything makes of a folder other than of one in which this recipe alone was run."""

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
    registry = load_registry()
    if stop_at is not None:
        registry.add_plugin(StopAt(stop_at), "stop")
        with pytest.raises(Interrupted):
            run(Recipe.from_table(table), out=out, registry=registry)
    else:
        run(Recipe.from_table(table), out=out)
    return out / "tiny"


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


@pytest.mark.parametrize("before", ["save", "write_current", "set_aside"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_while_a_folder_changes_its_recipe_never_leaves_components_of_another(
    recipes, alone, assert_as, use, tmp_path, before, call
):
    """Both recipes were run to their end in this folder, so either one's tokenizer is there to be mistaken."""
    first, second = recipes
    folder = go(first, tmp_path)
    go(second, tmp_path)

    def die() -> None:
        real, calls = getattr(RunFolder, before), []

        def call_or_die(self: RunFolder, *arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *arguments)

        setattr(RunFolder, before, call_or_die)
        run(Recipe.from_table(first), out=tmp_path)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    number = [0, 1][(folder / "recipe.toml").read_text() == (alone[1] / "recipe.toml").read_text()]
    try:
        codes = use["encode"](folder)
    except RobustokError:
        pass
    else:
        np.testing.assert_array_equal(codes["codes"], use["encode"](alone[number])["codes"])
    if (folder / "results.json").exists():
        assert (folder / "results.json").read_text() == (alone[number] / "results.json").read_text()
    assert_as(go(first, tmp_path), 0)
