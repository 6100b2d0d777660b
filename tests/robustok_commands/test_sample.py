"""`robustok sample` as a user meets it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from project import Project, record_as_it_is
from robustok_core import Draws, Guidance
from robustok_core.cli import main
from robustok_core.runs.folder import find_artifact
from robustok_core.values.draws import derive_seed
from robustok_toolkit.generating import decode_to_uint8
from robustok_toolkit.trained_tokenizer import TrainedTokenizer

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sample(capsys, monkeypatch, tmp_path: Path, trained) -> Command:
    """Runs `robustok sample RUN` with the trained run, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, run: Path | None = None) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["sample", str(run or trained.folder), *arguments])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def pictures(file: str) -> np.ndarray:
    with np.load(file) as held:
        return held["arr_0"]


def test_the_sample_file_holds_samples_of_the_trained_generator(sample, trained, registry):
    assert sample("--count", "12", "--set", "steps=3", "--seed", "5", "--out", "made.npz")[0] == 0
    generator, tokenizer = (trained.component(n) for n in ("generator", "tokenizer"))
    indices = torch.arange(12)
    with torch.no_grad():
        latents = generator.sample(
            indices % 10,
            Draws(seed=derive_seed(5, "sample"), indices=indices, total=12),
            guidance=Guidance(),
            sampling=generator.Sampling(steps=3),
        )
    expected = decode_to_uint8(tokenizer, latents).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(pictures("made.npz"), expected)
    with np.load("made.npz") as file:
        assert file["arr_1"].tolist() == [*range(10), 0, 1]


def test_the_same_samples_come_in_every_form_and_batch(sample):
    asked = ("--class", "ankle boot", "--class", "3", "--count", "5", "--guidance", "2")
    assert sample(*asked, "--out", "made.npz") == (0, "written to made.npz\n", "")
    assert sample(*asked, "--batch-size", "2", "--out", "folder/made")[0] == 0
    assert sample(*asked, "--out", "grids/grid.png")[0] == 0
    made = pictures("made.npz").astype(int)
    files = sorted(Path("folder/made").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(5)]
    in_folder = np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)
    assert (abs(in_folder - made) <= 1).all(), "another batch may round the other way"
    grid = np.asarray(Image.open("grids/grid.png"))  # two classes, at most three of each; captions of 16 pixels
    assert grid.shape == (2 * (16 + 64), 3 * 64, 3)
    np.testing.assert_array_equal(grid[16:80:2, 128::2], made[4])
    np.testing.assert_array_equal(grid[96::2, 64:128:2], made[3])


def test_guidance_options_and_the_seed_change_the_samples(sample):
    asked = {
        "plain": (),
        "guided": ("--guidance", "8"),
        "cold": ("--set", "temperature=0.01"),
        "other": ("--seed", "1"),
    }
    for name, options in asked.items():
        assert sample("--count", "4", *options, "--out", f"{name}.npz")[0] == 0
    for name in ("guided", "cold", "other"):
        assert (pictures(f"{name}.npz") != pictures("plain.npz")).any(), name


def test_the_folder_of_an_artifact_stands_for_its_run(sample, trained):
    folder = trained.artifact("generator")
    assert sample("--count", "2", "--out", "one.npz", run=folder)[0] == 0
    assert sample("--count", "2", "--out", "two.npz")[0] == 0
    np.testing.assert_array_equal(pictures("one.npz"), pictures("two.npz"))


def test_a_run_that_loaded_its_tokenizer_is_sampled_with_that(sample, trained, tmp_path):
    project = trained.later(tmp_path / "runs", ["train_generator"], load=("tokenizer", "latents")).run()
    assert sample("--count", "2", "--out", "one.npz", run=project.folder)[0] == 0
    assert sample("--count", "2", "--out", "two.npz")[0] == 0
    np.testing.assert_array_equal(pictures("one.npz"), pictures("two.npz"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--class", "ankle bot"), ["no class is called 'ankle bot'", "did you mean 'ankle boot'?"]),
        (("--class", "--3"), ["no class is called '--3'"]),
        (("--class", "\N{SUPERSCRIPT TWO}"), ["no class is called '\N{SUPERSCRIPT TWO}'"]),
        (("--class", "10"), ["there is no class 10", "classes are 0 to 9"]),
        (("--class", "9", "--class", "ankle boot"), ["the class 9 is named twice"]),
        (("--set", "step=4"), ["--set step: unknown key 'step'", "did you mean 'steps'?"]),
        (("--set", "steps=0"), ["--set steps: 0 is out of range"]),
        (("--set", "steps"), ["--set needs KEY=VALUE"]),
        (("--device", "warp"), ["--device: there is no device 'warp' here"]),
        (("--guidance", "-1"), ["Invalid value for '--guidance'"]),
        (("--guidance", "nan"), ["Invalid value for '--guidance': nan is not a finite number"]),
        (("--guidance", "inf"), ["Invalid value for '--guidance': inf is not a finite number"]),
        (("--set", "temperature=inf"), ["--set temperature: inf is out of range: numbers must be finite"]),
        (("--set", "temperature=nan"), ["--set temperature: nan is out of range"]),
        (("--set", "choice_temperature=inf"), ["--set choice_temperature: inf is out of range"]),
    ],
)
def test_a_wrong_option_gives_one_message_and_writes_nothing(sample, arguments, words):
    code, _, errors = sample(*arguments, "--out", "made.npz")
    assert code == 2
    assert all(word in errors for word in words), errors
    assert "Traceback" not in errors
    assert not list(Path().iterdir())


def test_guidance_without_label_dropout_in_training_is_refused(sample, part_less_guidance):
    code, _, errors = sample("--guidance", "1.5", "--out", "made.npz", run=part_less_guidance)
    assert code == 2
    assert "guidance of scale 1.5 needs a generator that was trained with label dropout" in errors


@pytest.fixture
def part_less_guidance(trained, tmp_path) -> Path:
    """A copy of the run whose generator says that it knows no null class."""
    from robustok_core.runs.files import read_json, write_json

    copied = tmp_path / "elsewhere" / "tiny"
    shutil.copytree(trained.folder, copied)
    file = find_artifact(copied, "generator") / "component.json"
    about = read_json(file)
    about["table"]["label_dropout"] = 0.0
    write_json(file, about)
    record_as_it_is(file.parent)
    return copied


def test_nothing_is_overwritten(sample):
    Path("made.npz").write_text("mine")
    code, _, errors = sample("--out", "made.npz")
    assert (code, Path("made.npz").read_text()) == (2, "mine")
    assert "made.npz: this already exists" in errors


@pytest.mark.parametrize("name", ["made.npz", "made.png", "made"])
def test_what_another_command_wrote_meanwhile_stays(sample, name, monkeypatch):
    decoded = TrainedTokenizer.decoded

    def meanwhile(*arguments, **options):
        Path(name).write_text("theirs")
        return decoded(*arguments, **options)

    monkeypatch.setattr(TrainedTokenizer, "decoded", meanwhile)
    code, output, errors = sample("--count", "2", "--out", name)
    assert (code, output, Path(name).read_text()) == (1, "", "theirs")
    kept = name.replace("made", "made-2")
    assert f"{name}: something else was written here meanwhile\n  hint: nothing is overwritten: what this" in errors
    assert f"made is in {kept}" in errors
    assert Path(kept).exists()


@pytest.mark.parametrize("name", ["grid.jpg", "grid.gif", "grid.PNG", "samples.npy", "samples.tar"])
def test_the_ending_of_another_kind_of_file_is_refused_and_makes_no_folder(sample, name):
    code, _, errors = sample("--out", name)
    assert code == 2
    assert f"--out {name}: cannot write .{name.split('.')[1]} files" in errors
    assert "a file ends in .png or .npz, and" in errors
    assert not list(Path().iterdir())


def test_a_folders_name_may_end_in_a_number(sample):
    assert sample("--count", "2", "--out", "guided-1.5")[0] == 0
    assert len(list(Path("guided-1.5").iterdir())) == 2


def test_an_artifact_outside_its_run_is_refused_by_name(sample, trained, tmp_path):
    shutil.copytree(trained.artifact("tokenizer"), tmp_path / "alone")
    code, _, errors = sample("--out", "made.npz", run=Path("alone"))
    assert code == 2
    assert (
        "error: alone: this folder holds only a tokenizer, but a generator is needed too\n  hint: name the folder"
        in errors
    )


def test_a_run_that_does_not_exist_is_refused(sample):
    code, _, errors = sample("--out", "made.npz", run=Path("runs/mian_train"))
    assert code == 2
    assert "error: runs/mian_train: there is no such run or artifact\n" in errors


def test_a_folder_that_is_not_a_run_is_refused(sample, tmp_path):
    code, _, errors = sample("--out", "made.npz", run=tmp_path)
    assert code == 2
    assert "this is not a run folder" in errors


def test_a_run_without_a_generator_says_what_it_can_do(sample, tmp_path):
    project = Project(tmp_path / "runs", ["train_tokenizer"]).run()
    code, _, errors = sample("--out", "new.png", run=project.folder)
    assert code == 2
    assert "this run trained a tokenizer and no generator" in errors
    assert f"`robustok encode {project.folder}`" in errors
    assert not Path("new.png").exists()
