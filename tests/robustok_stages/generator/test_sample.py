"""Sets of samples: independent of batches, shards and kills; what the files hold; what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from known_codes import KnownCodes
from processes import killed_in_a_shard
from project import CODEBOOK_SIZE, NUM_CLASSES, NUM_SAMPLES, NUM_TOKENS, TO_SAMPLES, Project, registry_with
from robustok_core import Latents, Recipe, RobustokError, run
from robustok_core.runs.components import save_component
from robustok_core.runs.files import read_json
from robustok_toolkit.generating import decode_to_uint8

LOADED = ("tokenizer", "generator")


@pytest.fixture
def known(trained, tmp_path):
    """Samples a generator whose codes a test can predict; returns the folder and the printed text."""

    def known(**options) -> tuple[Path, str]:
        project = trained.later(
            tmp_path,
            ["train_generator", "sample"],
            load=("tokenizer", "latents"),
            generator={"use": "known_codes"},
            sample={"sampling": {}, **options},
        )
        project.run(registry=registry_with(generator={"known_codes": KnownCodes}))
        return project.artifact("samples"), project.printed

    return known


def expected_codes(labels: torch.Tensor, shift: int = 0) -> torch.Tensor:
    first = torch.arange(len(labels)) + 5 * labels + shift
    return (first[:, None] + torch.arange(NUM_TOKENS)) % CODEBOOK_SIZE


def test_all_classes_are_sampled_in_turn_and_the_images_are_decoded_from_the_codes(known, trained):
    folder, message = known(num_samples=23, sampling={"shift": 2}, part_size=10, batch_size=4)
    labels = torch.arange(23) % NUM_CLASSES
    codes = expected_codes(labels, shift=2)
    np.testing.assert_array_equal(np.load(folder / "codes.npy"), codes.numpy())
    assert np.load(folder / "codes.npy").dtype == np.uint16
    tokenizer = trained.component("tokenizer")
    pictures = decode_to_uint8(tokenizer, Latents(codes=codes)).permute(0, 2, 3, 1).numpy()
    with np.load(folder / "samples.npz") as file:
        assert file["arr_0"].dtype == np.uint8
        # another batch size may round a pixel that lies between two of the 256 values the other way
        assert (abs(file["arr_0"].astype(int) - pictures) <= 1).all()
        assert (file["arr_0"] == pictures).mean() > 0.999
        np.testing.assert_array_equal(file["arr_1"], labels.numpy())
    assert (
        "sample: 23 is not a multiple of the number of classes (10): the first 3 classes get one more sample" in message
    )


def test_classes_may_be_named_or_numbered(known):
    folder, message = known(num_samples=6, classes=["ankle boot", 3], png=True, grid=2)
    labels = torch.tensor([9, 3] * 3)
    np.testing.assert_array_equal(np.load(folder / "codes.npy"), expected_codes(labels).numpy())
    with np.load(folder / "samples.npz") as file:
        np.testing.assert_array_equal(file["arr_1"], labels.numpy())
        pictures = file["arr_0"]
    files = sorted((folder / "png").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(6)]
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), pictures)
    assert "multiple" not in message
    grid = np.asarray(Image.open(folder / "grid.png"))  # a caption of 16 pixels, 2 pictures enlarged from 32 to 64
    assert grid.shape == (2 * (16 + 64), 2 * 64, 3)
    np.testing.assert_array_equal(grid[16:80:2, :64:2], pictures[0])
    np.testing.assert_array_equal(grid[96::2, 64::2], pictures[3])


def test_samples_say_how_they_were_made(known, trained):
    folder, _ = known(num_samples=6, guidance={"scale": 1.0, "schedule": "linear"}, precision="bf16")
    about = read_json(folder / "samples.json")
    assert about["sampling"] == {"shift": 0}, "with its defaults"
    linear = {"scale": 1.0, "schedule": "linear", "power": 1.0, "start": 0.0, "stop": 1.0, "guide_first": False}
    assert about["guidance"] == linear
    assert (about["num_samples"], about["precision"], about["image_size"]) == (6, "bf16", 32)
    latents = read_json(trained.artifact("latents") / "latents.json")
    assert about["latents_of"] == latents["tokenizer"]
    assert about["class_names"] == latents["class_names"]


@pytest.mark.parametrize("options", [{"batch_size": 7}, {"part_size": 24}, {"batch_size": 1, "part_size": 5}])
def test_batch_and_shard_sizes_do_not_change_samples(trained, tmp_path, options):
    """With a trained model, float sums may differ in the last bit, but not the sampled codes."""
    other = trained.later(tmp_path, ["sample"], load=LOADED, sample=options).run().artifact("samples")
    one = trained.artifact("samples")
    assert one.name.split("-")[0] == "samples"
    np.testing.assert_array_equal(np.load(one / "codes.npy"), np.load(other / "codes.npy"))
    with np.load(one / "samples.npz") as first, np.load(other / "samples.npz") as second:
        assert (abs(first["arr_0"].astype(int) - second["arr_0"]) <= 1).all()
        np.testing.assert_array_equal(first["arr_1"], second["arr_1"])


def test_more_samples_begin_with_the_same_ones(trained, tmp_path):
    project = trained.later(tmp_path, ["sample"], load=LOADED, sample={"num_samples": NUM_SAMPLES + 7}).run()
    more = np.load(project.artifact("samples") / "codes.npy")
    np.testing.assert_array_equal(more[:NUM_SAMPLES], np.load(trained.artifact("samples") / "codes.npy"))
    assert (more[NUM_SAMPLES:] != more[:7]).any()


def test_another_seed_gives_other_samples(trained, tmp_path):
    project = trained.later(tmp_path, ["sample"], load=LOADED)
    project.table["run"]["seed"] += 1
    other = np.load(project.run().artifact("samples") / "codes.npy")
    assert (other != np.load(trained.artifact("samples") / "codes.npy")).mean() > 0.5


@pytest.mark.parametrize("part", [1, 4, 6])
def test_a_killed_stage_resumes_and_gives_the_same_files(trained, tmp_path, part):
    """Two files per shard, three shards."""
    project = trained.later(tmp_path, ["sample"], load=LOADED)
    killed_in_a_shard(project.run, part)
    assert len(list((project.folder / "checkpoints").rglob("[!.]*.npy"))) == part - 1
    folder, whole = project.run().artifact("samples"), trained.artifact("samples")
    for name in ("codes.npy", "samples.npz", "grid.png"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list((project.folder / "checkpoints").rglob("*.npy"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"classes": ["ankle bot"]},
            "stage.sample.classes: no class is called 'ankle bot' (did you mean 'ankle boot'?)",
        ),
        ({"classes": [10]}, "stage.sample.classes: there is no class 10 (classes are 0 to 9)"),
        ({"classes": [9, "ankle boot"]}, "stage.sample.classes: the class 9 is named twice"),
        ({"sampling": {"step": 2}}, "stage.sample.sampling.step: unknown key 'step' (did you mean 'steps'?)"),
        ({"sampling": {"steps": 0}}, "stage.sample.sampling.steps: 0 is out of range"),
        ({"guidance": {"scale": 1.5}}, "stage.sample.guidance.scale: guidance of scale 1.5 needs a generator"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, changes, words):
    project = Project(tmp_path, TO_SAMPLES, sample=changes, generator={"label_dropout": 0.0})
    with pytest.raises(RobustokError) as caught:
        project.run()
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_options_for_a_loaded_generator_are_checked_and_located_in_the_recipe(trained, tmp_path):
    project = trained.later(tmp_path / "out", ["sample"], load=LOADED, sample={"classes": ["bog"]})
    file = tmp_path / "recipe.toml"
    file.write_text(
        f'[run]\nname = "loaded"\n[load]\ntokenizer = "{trained.folder}"\n'
        f'generator = "{trained.folder}"\n[[stage]]\nuse = "sample"\nnum_samples = {NUM_SAMPLES}\n'
        "[stage.sampling]\nsteps = 2\nstep = 2\n"
    )
    with pytest.raises(RobustokError, match=r"recipe.toml:11: stage.sample.sampling.step: unknown key 'step'"):
        run(Recipe.load(file), out=tmp_path / "out")
    del project.stage("sample")["sampling"]
    with pytest.raises(RobustokError, match="stage.sample.classes: no class is called 'bog' .*did you mean 'bag'"):
        project.run()
    assert not (tmp_path / "out").exists()


def test_a_generator_of_another_tokenizer_is_refused_by_name(trained, tmp_path):
    other = Project(tmp_path, run={"name": "other", "seed": 4}, train_tokenizer={"epochs": 0.2}).run()
    project = trained.later(tmp_path, ["sample"], load=LOADED)
    project.table["load"]["tokenizer"] = str(other.folder)
    before = sorted(tmp_path.iterdir())
    for refuse in (project.check, project.run):
        with pytest.raises(RobustokError, match="'maskgit' was trained on the latents of another tokenizer"):
            refuse()
    other.table["run"]["name"], other.table["tokenizer"]["quantizer"]["codebook_size"] = "larger", 64
    other.run()
    project.table["load"]["tokenizer"] = str(other.folder)
    with pytest.raises(RobustokError, match="'maskgit' samples latents of a different space .*K=32.* from .*K=64"):
        project.check()
    project.table["tokenizer"], project.table["data"] = other.table["tokenizer"], other.table["data"]
    project.table["stage"] = [*other.table["stage"], *project.table["stage"]]
    del project.table["load"]["tokenizer"]
    with pytest.raises(RobustokError, match="'maskgit' samples latents of a different space .*K=32.* from .*K=64"):
        project.check()
    assert sorted(tmp_path.iterdir()) == sorted([*before, other.folder])


def test_a_tokenizer_with_only_its_decoder_changed_decodes_the_same_codes(trained, tmp_path):
    folder = trained.artifact("tokenizer")
    tokenizer = trained.component("tokenizer")
    with torch.no_grad():
        tokenizer.last_layer.mul_(0.5)
    (tmp_path / "adapted").mkdir()
    save_component(tmp_path / "adapted", "tokenizer", read_json(folder / "component.json")["table"], tokenizer)
    project = trained.later(tmp_path, ["sample"], load=LOADED)
    project.table["load"]["tokenizer"] = str(tmp_path / "adapted")
    other, one = project.run().artifact("samples"), trained.artifact("samples")
    assert (other / "codes.npy").read_bytes() == (one / "codes.npy").read_bytes()
    assert (other / "samples.npz").read_bytes() != (one / "samples.npz").read_bytes()
