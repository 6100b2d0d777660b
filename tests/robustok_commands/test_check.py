"""`robustok check` as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tomli
from PIL import Image

from project import line_of, recipe_of
from robustok_core import Recipe
from robustok_core.runs.fingerprinting import fingerprints


def test_check_continues_with_the_next_recipe(command, recipe_file):
    code, output, errors = command("check", "missing.toml", recipe_file())
    assert code == 2
    assert output.endswith("r.toml: good\n")
    assert errors.count("error: ") == 1


def test_a_run_folder_is_checked_with_the_recipe_in_it(command, trained, refused, tmp_path):
    assert command("check", trained.folder)[1].endswith(f"{trained.folder}: good\n")
    output = command("check", trained.folder, "--show", "--set", "perturbation.delta=2")[1]
    assert tomli.loads(output)["run"]["name"] == trained.folder.name
    assert "or the folder of a run" in refused("check", tmp_path)


def test_all_wrong_changes_are_named_at_once(command, recipe_file):
    changes = ("--set", "stage.nowhere.x=1", "--set", "y", "--set", "run.name=[", "--set", "run.seed=1")
    code, _, output = command("check", recipe_file(), *changes)
    assert code == 2
    assert output.count("error: ") == 3
    assert "no stage is called 'nowhere'" in output
    assert "--set needs KEY=VALUE, found 'y'" in output
    assert "'[' is not valid TOML" in output


def test_check_show_prints_a_recipe_with_every_default(command, recipe_file):
    code, output, _ = command("check", recipe_file(), "--show", "--set", "perturbation.delta=2")
    assert code == 0
    shown = tomli.loads(output)
    assert shown["perturbation"]["delta"] == 2
    assert shown["stage"][0]["optimizer"]["betas"] == [0.9, 0.95]


@pytest.fixture
def images(tmp_path) -> Path:
    """Two classes of ten images each."""
    for number in range(20):
        file = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(file)
    return tmp_path / "images"


def test_damaged_images_are_counted_and_named(command, refused, recipe_file, images):
    file = recipe_file(data={"use": "image_folder", "path": str(images), "image_size": 32})
    few = ("--set", "stage.train_tokenizer.batch_size=4")
    assert command("check", file)[0] == 0
    for name in ("cat/4.png", "dog/5.png"):
        (images / name).write_bytes(b"no image")
    (images / "cat" / "0.png").write_bytes((images / "cat" / "0.png").read_bytes()[:60])
    code, _, errors = command("check", file)
    assert code == 2
    lines = [line for line in errors.splitlines() if "error: " in line]
    counts = [int(re.search(r"data: (\d+) of \d+ images of \w+ cannot be read: ", line)[1]) for line in lines]
    assert sum(counts) == 3
    assert all(f"/{name} (this image cannot be read" in errors for name in ("4.png", "5.png", "0.png"))
    assert line_of(file, "[data]") in errors
    assert command("check", file, "--set", "data.on_bad_file=skip", *few)[0] == 0


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"use": "image_folder", "path": "gone"}, "path"),
        ({"use": "npz", "path": "gone.npz", "image_size": 32}, "path"),
        ({"use": "webdataset", "train": "gone-{0..1}.tar"}, "train"),
        ({"use": "fashion_mnist", "path": "gone.npz"}, "path"),
        ({"use": "image_folder", "path": ""}, "path"),
    ],
)
def test_a_wrong_place_of_the_data_is_named_with_its_line_and_key(refused, recipe_file, table, key):
    file = recipe_file({f"data.{name}": value for name, value in table.items()} | {})
    text = file.read_text()
    table_lines = "".join(f"{name} = {value!r}\n" for name, value in table.items()).replace("'", '"')
    start, end = text.index("[data]"), text.index("[", text.index("[data]") + 1)
    file.write_text(f"{text[:start]}[data]\n{table_lines}\n{text[end:]}")
    output = refused("check", file)
    assert f"error: {file}:" in output
    assert f"{line_of(file, f'{key} = ')}data.{key}: " in output


def test_check_as_json_has_stages_and_recipe_or_the_mistakes(command, recipe_file):
    code, output, errors = command("check", recipe_file(), "missing.toml", "--json")
    good, missing = json.loads(output)
    assert (code, errors.count("error: ")) == (2, 1)
    assert good["good"]
    assert good["stages"][0]["name"] == "train_tokenizer"
    assert good["stages"][0]["makes"].keys() == {"tokenizer"}
    assert good["recipe"]["stage"][0]["optimizer"]["betas"] == [0.9, 0.95]
    assert (missing["good"], missing["stages"], len(missing["problems"])) == (False, None, 1)
    assert "missing.toml" in missing["problems"][0]["what"]


def test_a_quiet_check_prints_mistakes_only(command, recipe_file):
    assert command("check", recipe_file(), "--quiet") == (0, "", "")
    assert command("check", "missing.toml", "-q")[:2] == (2, "")


@pytest.mark.parametrize("other", ["--quiet", "--json"])
def test_show_is_refused_where_it_would_print_nothing(command, recipe_file, other):
    code, output, errors = command("check", recipe_file(), "--show", other)
    assert (code, output) == (2, "")
    assert f"leave out {other}" in errors


def test_a_recipe_is_checked_for_the_gpus_it_will_run_on(command, refused, recipe_file):
    file = recipe_file(train_tokenizer={"batch_size": 8})
    assert command("check", file, "--gpus", "4")[0] == 0
    message = refused("check", file, "--gpus", "3")
    assert "r.toml:" in message
    assert "stage.train_tokenizer.batch_size: a batch of 8 images does not divide into 3 equal parts" in message


#: Data that are not here, and what the recipe says of them.
ABSENT = {
    "use": "image_folder",
    "path": "nowhere",
    "image_size": 32,
    "expect": {"train": 80, "validation": 40, "classes": 10},
}


def test_without_data_the_rest_is_checked_and_what_was_not_is_said(command, refused, recipe_file):
    file = recipe_file(data=ABSENT)
    code, output, _ = command("check", file, "--without-data")
    assert code == 0
    assert "not checked: data: taken as its option `expect` says: 80 training and 40 validation images" in output
    assert output.endswith("r.toml: good\n")
    assert "no such folder" in refused("check", file)


def test_without_data_mistakes_are_still_found(refused, recipe_file):
    larger = recipe_file(data={**ABSENT, "image_size": 64})
    assert "the images of [data] are 64 pixels wide" in refused("check", larger, "--without-data")
    fewer = recipe_file(data={**ABSENT, "expect": {"train": 8, "validation": 40, "classes": 10}})
    assert "which holds 8" in refused("check", fewer, "--without-data")


def test_without_data_a_file_of_load_is_taken_as_the_recipe_says(command, refused, recipe_file):
    other = recipe_file().rename(recipe_file().with_name("other.toml"))
    file = recipe_file(stages=["tokenize"], data=ABSENT, load={"tokenizer": "nowhere"})
    assert "nothing says what it will hold" in refused("check", file, "--without-data")
    for described in (f'"{other}"', '{ use = "conv_vq", image_size = 32 }'):
        entry = f'load.tokenizer={{ path = "nowhere", expect = {described} }}'
        output = command("check", file, "--set", entry, "--without-data")[1]
        assert "not checked: [load] tokenizer: nowhere is not here" in output
        assert output.endswith("r.toml: good\n")
    entry = 'load.tokenizer={ path = "nowhere", expect = { use = "conv_vq", image_size = 64 } }'
    assert "pixels wide" in refused("check", file, "--set", entry, "--without-data")
    assert "there is no such file or folder" in refused("check", file, "--set", entry, "--set", f"data.path={other}")


def test_what_is_expected_changes_no_fingerprint(registry, images, tmp_path):
    def of(**expected):
        data = {"use": "image_folder", "path": str(images), "image_size": 32, **expected}
        table = recipe_of(data=data, train_tokenizer={"batch_size": 8})
        return fingerprints(Recipe.from_table(table).resolve(registry), registry=registry, out=tmp_path / "runs")

    assert of() == of(expect=ABSENT["expect"])


def test_a_mistake_in_what_several_recipes_extend_is_said_once(refused, tmp_path):
    (tmp_path / "base.toml").write_text('extends = "main_train"\n[tokenizer]\nimage_sise = 32\n')
    for name in "ab":
        (tmp_path / f"{name}.toml").write_text(f'extends = "base.toml"\n[run]\nname = "{name}"\n')
    assert refused("check", tmp_path / "a.toml", tmp_path / "b.toml").count("unknown key 'image_sise'") == 1
