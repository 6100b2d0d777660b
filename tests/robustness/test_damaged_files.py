"""Every file of a finished run, damaged in five ways: it is named, and no result comes from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from project import POST_TRAINING, Project, assert_same_weights, contents
from robustok_core import RobustokError
from robustok_core.runs.files import read_json
from robustok_core.runs.history import HISTORY
from robustok_core.runs.verify import verified
from robustok_toolkit.trained_generator import load_generator
from robustok_toolkit.trained_tokenizer import load_tokenizer


def cut(file: Path) -> None:
    rewrite(file, file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    rewrite(file, b"")


def removed(file: Path) -> None:
    file.unlink()


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(file, bytes(content))


def replaced(file: Path) -> None:
    file.unlink()
    file.mkdir()


def rewrite(file: Path, content: bytes) -> None:
    """Changes a file in place, as a failing disk does."""
    with file.open("r+b") as opened:
        opened.truncate(0)
        opened.write(content)


#: Options with which the stage takes no time.
FEW = {"limit": 20, "keep": 0.5, "metrics": {}, "tokenizer_metrics": {}}
WAYS = [cut, emptied, removed, flipped, replaced]
Damage = Callable[[Path], None]


@pytest.fixture
def project(trained, tmp_path) -> Project:
    """A copy of the trained project."""
    shutil.copytree(trained.out, tmp_path / "runs")
    return Project.of(trained.table, tmp_path / "runs")


def files_of(project: Project, artifact: str) -> list[Path]:
    folder = project.artifact(artifact)
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]


def as_made(project: Project) -> dict[str, bytes]:
    """The artifacts and results, but not where they were made."""
    return {name: content for name, content in contents(project.folder).items() if name.startswith(("artif", "resul"))}


@pytest.mark.parametrize("damage", WAYS)
def test_a_stage_with_a_damaged_artifact_runs_again_and_gives_what_it_gave(trained, project, damage):
    """Of each artifact another file is damaged in each of the ways."""
    damaged = []
    for number, name in enumerate(("tokenizer", "latents", "generator", "samples")):
        files = files_of(project, name)
        damaged.append(files[(number + WAYS.index(damage)) % len(files)])
        damage(damaged[-1])
    project.run()
    for file in damaged:
        assert f"{file}: " in project.printed
        assert (project.folder / HISTORY / f"damaged-{file.relative_to(project.folder).parts[1]}").is_dir()
    assert as_made(project) == as_made(trained)
    assert "runs again" not in project.run().printed


@pytest.mark.parametrize("damage", WAYS)
@pytest.mark.parametrize("name", ["component.json", "model.safetensors", "manifest.json"])
def test_a_damaged_artifact_is_refused_wherever_it_is_read(project, refused, tmp_path, name, damage):
    file = project.artifact("tokenizer") / name
    damage(file)
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"")
    for place in (project.folder, file.parent):
        output = refused("encode", place, picture, "--out", "codes.npz", code=1)
        assert f"error: {file}: " in output
        assert "run the recipe that made it again" in output
    with pytest.raises(RobustokError, match=name):
        load_generator(project.folder)
    loading = Project(tmp_path / "other", ["tokenize"], load={"tokenizer": project.folder})
    assert str(file) in loading.refusal()
    assert not loading.folder.exists()


def test_damage_is_noticed_though_the_manifest_is_gone(trained, project):
    manifests = []
    for name in ("tokenizer", "latents", "generator", "samples"):
        manifests.append(project.artifact(name) / "manifest.json")
        flipped(files_of(project, name)[-1])
        removed(manifests[-1])
    assert [checked.path for checked in verified(project.folder) if checked.damaged] == sorted(manifests)
    project.run()
    for manifest in manifests:
        assert f"{manifest}: it is missing; stage" in project.printed
    assert as_made(project) == as_made(trained)


def test_every_file_of_a_run_is_verified(project, command):
    project.table = {**project.table, "stage": project.table["stage"][:1]}
    project.run()  # the recipe before lies in history/
    code, output, _ = command("verify", project.folder)
    assert code == 0
    assert {line.rpartition(": ")[2] for line in output.splitlines()} == {"good"}
    held = [path for path in sorted(project.folder.rglob("*")) if path.is_file()]
    for file in held:
        if file.name == ".lock":
            continue
        before = file.read_bytes()
        flipped(file)
        bad = [checked for checked in verified(project.folder) if checked.damaged]
        assert [checked.path for checked in bad] == [file]
        rewrite(file, before)
    flipped(next((project.folder / "artifacts").glob("samples-*/samples.npz")))
    code, output, errors = command("verify", project.folder)
    assert code == 1
    assert "samples.npz: its content has changed since it was written" in output
    assert "1 of" in errors


@pytest.mark.parametrize("damage", WAYS)
def test_a_damaged_run_file_is_repaired_from_its_copy_and_nothing_runs_again(project, refused, tmp_path, damage):
    before = read_json(project.folder / "run.json")
    damage(project.folder / "run.json")
    output = refused("sample", project.folder, "--out", tmp_path / "new.png", code=1)
    assert f"hint: `robustok run {project.folder}` repairs it from its copy" in output
    project.run()
    assert f"{project.folder / 'run.json'} was damaged" in project.printed
    assert project.printed.count("done before, unchanged") == len(project.table["stage"])
    assert read_json(project.folder / "run.json") == before


def test_a_run_file_without_a_copy_is_refused_and_nothing_is_lost(project):
    (project.folder / ".run.json.copy").unlink()
    flipped(project.folder / "run.json")
    before = contents(project.folder)
    assert "restore it from a backup, or run again with --fresh" in project.refusal()
    assert contents(project.folder) == before
    assert load_tokenizer(next((project.folder / "artifacts").glob("tokenizer-*"))), "what it made can be used"


@pytest.mark.parametrize("damage", WAYS)
def test_damaged_results_are_written_again_and_not_compared(project, refused, damage):
    file = project.folder / "results.json"
    before = file.read_bytes()
    damage(file)
    refused("compare", project.folder, project.folder)
    project.run()
    assert file.read_bytes() == before
    if damage is not removed:
        assert f"{file} was damaged; it is written again" in project.printed


def step_of(logged: dict[str, Any]) -> tuple[str, int]:
    return logged["stage"], logged["step"]


DAMAGED_LINES = (b"\xff", b"3", b"[]")


@pytest.mark.parametrize("damage", WAYS)
def test_a_damaged_log_or_recipe_stops_nothing(trained, project, damage):
    damage(project.folder / "recipe.toml")
    damage(project.artifact("tokenizer") / "model.safetensors")
    log = project.folder / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b"\n".join(DAMAGED_LINES) + b"\n" + b"[" * 100_000)
    project.run()
    assert as_made(project) == as_made(trained)
    assert (project.folder / "recipe.toml").read_bytes() == (trained.folder / "recipe.toml").read_bytes()
    logged = [json.loads(line) for line in log.read_bytes().splitlines() if line not in DAMAGED_LINES]
    assert sorted(map(step_of, logged)) == sorted(map(step_of, trained.logged()))


@pytest.fixture(scope="module")
def resumable(tmp_path_factory) -> Project:
    """A trained tokenizer with two checkpoints; not to be changed."""
    return Project(tmp_path_factory.mktemp("resumable"), train_tokenizer={"checkpoint_every": 1}).run()


def without_tokenizer(resumable: Project, out: Path) -> tuple[Project, list[Path]]:
    """A copy that must resume its training, and its checkpoints, oldest first."""
    shutil.copytree(resumable.out, out, dirs_exist_ok=True)
    project = Project.of(resumable.table, out)
    shutil.rmtree(project.artifact("tokenizer"))
    return project, sorted((project.folder / "checkpoints").glob("*/step-*"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [("state.safetensors", damage) for damage in WAYS]
    + [("state.json", cut), ("state.json", removed)]
    + [("manifest.json", damage) for damage in (flipped, removed, replaced)],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_gives_the_same(resumable, tmp_path, name, damage):
    project, (before, last) = without_tokenizer(resumable, tmp_path)
    damage(last / name)
    project.run()
    assert_same_weights(resumable.weights(), project.weights())
    losses = [[line["tokenizer/loss"] for line in one.logged()] for one in (resumable, project)]
    assert losses[0] == losses[1]
    assert f"{last / name}: " in project.printed
    assert f"set aside as damaged-{last.name}, and the one before, {before.name}, is used" in project.printed
    assert last.with_name(f"damaged-{last.name}").is_dir()


def test_where_both_checkpoints_are_damaged_training_starts_again(resumable, tmp_path):
    project, both = without_tokenizer(resumable, tmp_path)
    for checkpoint in both:
        flipped(checkpoint / "state.safetensors")
    project.run()
    assert "and training starts again" in project.printed
    assert_same_weights(resumable.weights(), project.weights())


def test_decoders_that_share_their_files_with_checkpoints_are_trained_again(trained, tmp_path):
    """The files are hard links, so a bit that turns on the disk turns in all of them."""
    later = trained.later(tmp_path, POST_TRAINING, load=("tokenizer", "generator"), compare_decoders=FEW)
    later.run()
    made = as_made(later)
    weights = later.artifact("tokenizer", stage="compare_decoders") / "model.safetensors"
    assert weights.stat().st_nlink > 1
    flipped(weights)
    later.run()
    assert as_made(later) == made
    assert "it is trained again" in later.printed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(project):
    file = project.artifact("tokenizer") / "model.safetensors"
    file.chmod(0)
    assert "it cannot be read: Permission denied" in project.run().printed
