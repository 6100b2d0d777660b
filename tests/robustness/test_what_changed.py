"""What a run says about data that moved, and about what changed where a stage runs again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from project import Project, contents
from robustok_core.runs import stage_fingerprints
from robustok_core.runs.files import read_json
from robustok_core.runs.named_files import look_at, paths_in
from robustok_core.runs.run_record import write_run
from robustok_core.values.spec import Spec

SHORT = {"epochs": 0.2}
DONE = "train_tokenizer: done before, unchanged"


def folder_of_images(root: Path) -> Path:
    """Two classes of eight images."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        file = root / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return root


@pytest.fixture
def project(tmp_path) -> Project:
    data = {"use": "image_folder", "path": str(folder_of_images(tmp_path / "images")), "image_size": 32}
    data |= {"on_bad_file": "skip", "validation_share": 0.25}
    return Project(tmp_path / "out", data=data, train_tokenizer={**SHORT, "batch_size": 4})


def moved(project: Project) -> None:
    old = Path(project.table["data"]["path"])
    project.table["data"]["path"] = str(old.rename(old.with_name("elsewhere")))


def test_moving_the_data_makes_no_stage_run_again(project):
    project.run()
    moved(project)
    assert DONE in project.run().printed
    assert "data.path: " in project.printed


def test_a_run_of_an_earlier_version_is_taken_where_the_data_lie_where_they_lay(project, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(stage_fingerprints, "_VERSIONS", ((Spec.table, False),))  # these had the path
        project.run()
    before = read_json(project.folder / "run.json")["current"]
    assert DONE in project.run().printed
    assert read_json(project.folder / "run.json")["current"] == before
    moved(project)
    assert DONE not in project.run().printed
    assert read_json(project.folder / "run.json")["current"] != before


def with_other_seed(project):
    project.table["run"]["seed"] = 4


def with_other_options(project):
    project.table["perturbation"]["beta"] = 0.5


def with_an_image_removed(project):
    (Path(project.table["data"]["path"]) / "cat" / "0.png").unlink()


def with_the_damaged_image_removed(project):
    (Path(project.table["data"]["path"]) / "cat" / "damaged.png").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_other_seed, "its settings changed"),
        (with_other_options, "its settings changed"),
        (with_an_image_removed, "images (files, sizes, content or labels) changed"),
        (with_the_damaged_image_removed, "images (files, sizes, content or labels) changed"),
    ],
)
def test_a_stage_that_runs_again_says_what_changed(project, change, said, command):
    damaged = Path(project.table["data"]["path"]) / "cat" / "damaged.png"
    damaged.write_bytes(b"no image")
    project.run()
    assert "runs again" not in project.printed
    change(project)
    project.run()
    (line,) = [line for line in project.printed.splitlines() if "runs again" in line]
    assert line.startswith("train_tokenizer runs again: ")
    assert line.endswith(said)
    if "images" in said:
        assert "its settings" not in line
        _, output, _ = command("history", project.folder)
        assert f"train_tokenizer: {line.partition(': ')[2].removesuffix(' changed')}" in output


def rows(file: Path, seed: int) -> Path:
    """A file of rows for `projected_vq`; always of the same size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.randn(16, 4, generator=torch.Generator().manual_seed(seed)), file)
    return file


@pytest.fixture
def naming(tmp_path) -> Project:
    """A project whose recipe names a file, which was written an hour ago."""
    file = rows(tmp_path / "table.pt", 0)
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 3600))
    quantizer = {"use": "projected_vq", "table": str(file), "codebook_size": 16, "table_width": 4, "width": 4}
    return Project(tmp_path / "out", tokenizer={"quantizer": quantizer}, train_tokenizer=SHORT)


def test_another_file_under_a_path_that_a_recipe_names_is_noticed(naming, tmp_path):
    naming.run()
    assert DONE in naming.run().printed
    before = (tmp_path / "table.pt").read_bytes()
    rows(tmp_path / "table.pt", 1)
    assert f"train_tokenizer runs again: the content of {tmp_path / 'table.pt'} changed\n" in naming.run().printed
    assert DONE in naming.run().printed
    (tmp_path / "table.pt").write_bytes(before)
    assert DONE in naming.run().printed


def test_a_stage_stays_done_where_a_file_that_it_read_is_gone(naming, tmp_path):
    naming.run()
    (tmp_path / "table.pt").unlink()
    assert DONE in naming.run().printed


@pytest.mark.parametrize("rewritten", [False, True])
def test_what_an_earlier_version_finished_stays_done_if_the_file_is_older(naming, tmp_path, monkeypatch, rewritten):
    with monkeypatch.context() as earlier:
        earlier.setattr(stage_fingerprints, "_VERSIONS", ((stage_fingerprints.shaping, False),))
        naming.run()
    record = read_json(naming.folder / "run.json")
    for entry in record["stages"].values():
        del entry["made_from"]["files"]
    write_run(naming.folder, record)
    if rewritten:
        rows(tmp_path / "table.pt", 1)
    naming.run()
    assert (DONE in naming.printed) == (not rewritten)
    assert ("or the time at which it was written, changed" in naming.printed) == rewritten


def test_files_of_what_shapes_no_result_do_not_count(registry, tmp_path):
    metrics = {"gfd": {"use": "frechet", "features": {"use": "inception", "weights": str(tmp_path / "inception.pth")}}}
    measured = registry.spec(
        "stage", {"use": "train_generator", "epochs": 1, "batch_size": 4, "measure": {"metrics": metrics}}
    )
    evaluated = registry.spec("stage", {"use": "evaluate_generator", "metrics": metrics, "reference": "ref.npz"})
    assert paths_in([measured]) == []
    assert paths_in([evaluated]) == [Path("ref.npz"), tmp_path / "inception.pth"]


def test_a_folder_and_an_index_count_with_all_their_files(tmp_path):
    folder, index = tmp_path / "reference", tmp_path / "model.safetensors.index.json"
    rows(folder / "a" / "0.pt", 0)
    part = rows(tmp_path / "part.pt", 0)
    index.write_text(json.dumps({"weight_map": {"weight": part.name}}))
    seen = [look_at(folder), look_at(index)]
    rows(folder / "a" / "0.pt", 1)
    rows(part, 1)
    assert not {file.content for file in seen} & {look_at(folder).content, look_at(index).content}
    assert look_at(tmp_path / "nowhere") is None


def test_a_stage_says_which_artifact_that_it_reads_is_another(tmp_path):
    first = Project(tmp_path / "first", train_tokenizer=SHORT).run()
    later = first.later(tmp_path / "later", ["tokenize"]).run()
    other = Project(tmp_path / "other", train_tokenizer=SHORT, run={"seed": 9, "precision": "no", "name": "tiny"}).run()
    later.table["load"]["tokenizer"] = str(other.folder)
    assert "tokenize runs again: the tokenizer that it reads changed\n" in later.run().printed


def test_a_renamed_run_holds_the_same_recipe(project):
    project.run()
    results = (project.folder / "results.json").read_bytes()
    project.folder.rename(project.folder.with_name("renamed"))
    project.table["run"]["name"] = "renamed"
    project.run()
    assert "this run was called tiny; it is renamed now\n" in project.printed
    assert "another recipe" not in project.printed
    assert DONE in project.printed
    assert (project.folder / "results.json").read_bytes() == results
    assert not (project.folder / "history").exists()
    assert "was called" not in project.run().printed


@pytest.mark.parametrize("damage", ["[[", "", None])
def test_a_damaged_recipe_of_a_run_is_read_from_its_copy(project, command, damage, caplog):
    project.run()
    file = project.folder / "recipe.toml"
    before = file.read_bytes()
    file.unlink() if damage is None else file.write_text(damage)
    assert command("check", project.folder)[0] == 0
    assert f"{file} is damaged (" in caplog.text
    assert "its copy is used" in caplog.text
    assert command("run", project.folder)[0] == 0
    assert file.read_bytes() == before


def test_a_damaged_recipe_without_a_copy_names_the_command_that_writes_it_again(project, refused, command):
    project.run()
    (project.folder / "recipe.toml").write_text("[[")
    (project.folder / ".recipe.toml.copy").unlink()
    record = contents(project.folder)["run.json"]
    output = refused("check", project.folder)
    assert "recipe.toml:1: not valid TOML" in output
    assert "which writes it again" in output
    assert contents(project.folder)["run.json"] == record
