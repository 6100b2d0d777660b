"""The code that the page shows makes the images that the page shows."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustok_explorer.answers import drawn
from robustok_explorer.picture import save_sheet

VIEWS = [
    ("perturb", {"image": 3, "num_images": 2, "seed": 5, "perturbation.alpha": 0.5}),
    ("keep", {"image": 3, "num_images": 2, "sigma": 0.5, "seed": 2}),
    ("paint", {"image": 3, "source": 4, "tokens": [6, 2, 2]}),
    ("neighbours", {"image": 3, "token": 5, "count": 4}),
    ("sample", {"class_": "bag", "count": 2, "seed": 4}),
    ("sample", {"count": 2}),
]


def made(sheet, view: str) -> dict[str, list[torch.Tensor]]:
    """The tiles that a view makes, by the decoder that its row or caption names."""
    found: dict[str, list[torch.Tensor]] = {}
    for name, row in sheet.rows.items():
        for tile in row:
            caption = name if view in ("neighbours", "sample") else tile.caption
            if tile.changed is not None or view == "sample":
                when = caption.rpartition(", ")[2]
                found.setdefault(when if when in ("before", "after") else "", []).append(tile.pixels)
    return found


def assert_python_makes(sheet, python: str, view: str, folder: Path) -> None:
    """Runs a snippet, which writes into the working folder: the images of the sheet, and no others."""
    exec(compile(python, "snippet.py", "exec"), {})
    expected = made(sheet, view)
    assert len(list(folder.glob("*.png"))) == sum(map(len, expected.values()))
    for when, tiles in expected.items():
        for number, pixels in enumerate(tiles):
            (file,) = folder.glob(f"*{when and '_' + when}_{number}.png") if when else folder.glob(f"*_{number}.png")
            assert torch.equal(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1), pixels)


@pytest.mark.parametrize(("view", "changes"), VIEWS)
def test_the_python_makes_the_same_images(run, view, changes, tmp_path, monkeypatch):
    if view == "neighbours" and run.tokenizer.tokenizer.quantizer is None:
        pytest.skip("a continuous space has no neighbours")
    sheet, code = drawn(run, view, changes)
    monkeypatch.chdir(tmp_path)
    assert_python_makes(sheet, code.python, view, tmp_path)


@pytest.mark.parametrize(
    ("view", "changes"), [("keep", {"image": 3, "sigma": 0.1}), ("sample", {"count": 2, "guidance": 900.0})]
)
def test_the_python_has_the_recipes_guidance(guided, open_project, view, changes, tmp_path, monkeypatch):
    sheet, code = drawn(open_project(guided), view, changes)
    monkeypatch.chdir(tmp_path)
    assert_python_makes(sheet, code.python, view, tmp_path)


@pytest.mark.parametrize(("view", "changes"), VIEWS[:4])
def test_the_command_draws_the_same_sheet(run, view, changes, tmp_path, command):
    if view == "neighbours" and run.tokenizer.tokenizer.quantizer is None:
        pytest.skip("a continuous space has no neighbours")
    sheet, code = drawn(run, view, changes)
    words = shlex.split(code.command)
    assert words[0] == "robustok"
    assert command(*words[1:])[0] == 0
    save_sheet(tmp_path / "expected.png", sheet)
    assert (tmp_path / f"{view}.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_the_command_of_samples_draws_the_same_ones(run, tmp_path, command):
    sheet, code = drawn(run, "sample", {"class_": "bag", "count": 2, "guidance": 1.0, "seed": 4})
    assert command(*shlex.split(code.command)[1:])[0] == 0
    *_, newest = sheet.rows.values()
    picture = np.array(Image.open(tmp_path / "samples.png"))[16:]  # below the name of the class
    expected = torch.cat([tile.pixels for tile in newest], dim=2).permute(1, 2, 0).numpy()
    assert np.array_equal(picture[::2, ::2], expected)


def test_the_command_of_samples_says_which_decoder_draws_them(trained, post_trained, open_project):
    _, code = drawn(open_project(post_trained), "sample", {"count": 2})
    assert list(code.notes) == ["The command draws with the decoder after post-training only."]
    assert "before.decode_to_images(made)" in code.python
    _, code = drawn(open_project(trained), "sample", {"count": 2})
    assert not code.notes


def test_the_command_of_samples_says_what_of_the_guidance_it_does_not_have(guided, open_project):
    run = open_project(guided)
    _, code = drawn(run, "sample", {"count": 2, "guidance": 900.0})
    missing = 'only the Python has guidance = { scale = 900.0, schedule = "cosine", power = 1.5 }.'
    assert code.notes[-1] == f"The command guides with a constant scale: {missing}"
    assert "--guidance 900 " in code.command
    _, code = drawn(run, "sample", {"count": 2, "guidance": 1.0})
    assert "guidance=1.0" in code.python
    assert len(code.notes) == 1


def test_two_files_of_one_name_are_told_apart(trained, open_project, tmp_path, command, monkeypatch):
    for folder, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 40), colour).save(tmp_path / folder / "x.png")
    files = {"file": str(tmp_path / "a" / "x.png"), "source_file": str(tmp_path / "b" / "x.png")}
    sheet, code = drawn(open_project(trained), "paint", {**files, "tokens": [1, 2]})
    assert list(code.files) == ["x.png", "x-2.png"]
    assert list(code.notes) == ["x-2.png is the second image called x.png: save it under this name."]
    (tmp_path / "a" / "x-2.png").write_bytes((tmp_path / "b" / "x.png").read_bytes())
    monkeypatch.chdir(tmp_path / "a")
    exec(compile(code.python, "snippet.py", "exec"), {})
    painted = made(sheet, "paint")[""][0]
    assert torch.equal(torch.from_numpy(np.array(Image.open("painted_0.png"))).permute(2, 0, 1), painted)
    assert command(*shlex.split(code.command)[1:])[0] == 0
    _, code = drawn(
        open_project(trained), "paint", {"file": files["file"], "source_file": files["file"], "tokens": [1]}
    )
    assert list(code.files) == ["x.png"]


def test_a_file_goes_by_its_name_and_is_said_to_be_needed(trained, open_project, tmp_path, command, monkeypatch):
    folder = tmp_path / "uploads"
    folder.mkdir()
    name = "a 'red' one é.png"
    Image.new("RGB", (40, 40), (255, 0, 0)).save(folder / name)
    sheet, code = drawn(open_project(trained), "paint", {"file": str(folder / name), "source": 4, "tokens": [1]})
    assert list(code.files) == [name]
    monkeypatch.chdir(folder)
    exec(compile(code.python, "snippet.py", "exec"), {})
    painted = made(sheet, "paint")[""][0]
    assert torch.equal(torch.from_numpy(np.array(Image.open("painted_0.png"))).permute(2, 0, 1), painted)
    assert command(*shlex.split(code.command)[1:])[0] == 0
