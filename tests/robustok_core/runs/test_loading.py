"""[load]: artifacts of other runs and published checkpoints, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attrs import frozen
from safetensors.torch import load_file, save_file

from project import STEPS_PER_EPOCH, TABLES, Project, assert_same_weights, registry_with
from readers import write_sharded
from robustok_core import Importer, Recipe, RobustokError, RunError
from robustok_core.runs.checking import check
from robustok_core.runs.files import read_json
from robustok_core.runs.loading import read_published

PARITY = Path(__file__).parents[2] / "parity" / "robustok_tokenizer_a.safetensors"
EVALUATION = {"use": "evaluate_tokenizer", "limit": 20, "metrics": {"psnr": {"use": "psnr"}}}


@frozen(kw_only=True)
class CarelessConfig:
    """No options."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    """A tokenizer of one step; not to be changed."""
    out = tmp_path_factory.mktemp("finished")
    return Project(out, train_tokenizer={"epochs": 1 / STEPS_PER_EPOCH}).run()


@pytest.fixture
def published(tmp_path) -> Path:
    """A small tokenizer in the published layout."""
    file = tmp_path / "published.safetensors"
    save_file({name[2:]: value for name, value in load_file(PARITY).items() if name.startswith("w.")}, file)
    return file


def importing(file: Path, out: Path) -> Project:
    """A project that evaluates a published tokenizer, whose images have 16 x 16 pixels."""
    project = Project(out, [EVALUATION])
    importer = {"use": "robustok", "num_heads": 2}
    project.table["load"] = {"tokenizer": {"path": str(file), "importer": importer}}
    project.table["data"] |= {"image_size": 16}
    return project


@pytest.mark.parametrize("folder", ["the run's", "the artifact's"])
def test_a_runs_folder_and_an_artifacts_folder_give_the_same(finished, tmp_path, folder):
    place = finished.folder if folder == "the run's" else finished.artifact("tokenizer")
    project = Project(tmp_path, ["tokenize"], load={"tokenizer": place}).run()
    assert project.artifact("tokenizer") == finished.artifact("tokenizer")
    other = finished.later(tmp_path / "other", ["tokenize"]).run()
    assert project.artifact("latents").name == other.artifact("latents").name


def test_a_loaded_artifact_with_other_content_changes_the_fingerprint(finished, tmp_path):
    other = Project(tmp_path / "other", run={"seed": 4}, train_tokenizer={"epochs": 1 / STEPS_PER_EPOCH}).run()
    names = {
        Project(tmp_path / str(number), ["tokenize"], load={"tokenizer": one.folder}).run().artifact("latents").name
        for number, one in enumerate((finished, other))
    }
    assert len(names) == 2


def test_a_place_that_does_not_exist_is_refused_at_the_line_of_its_entry(registry, tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('[load]\ntokenizer = "nowhere"\n[data]\nuse = "fashion_mnist"\n[[stage]]\nuse = "tokenize"\n')
    with pytest.raises(RobustokError, match=r"r\.toml:2: \[load\] tokenizer: nowhere: there is no such file") as caught:
        check(Recipe.load(file), registry=registry)
    assert f"relative to the working directory, {Path.cwd()}" in caught.value.hint


def test_an_artifact_of_another_kind_is_refused(finished, tmp_path):
    project = Project(tmp_path, ["sample"], load={"generator": finished.artifact("tokenizer")})
    project.table["load"]["tokenizer"] = str(finished.folder)
    assert "[load] generator: " in (message := project.refusal())
    assert "this holds a tokenizer, not a generator" in message


def test_a_run_that_has_no_such_artifact_is_refused(finished, tmp_path):
    project = Project(tmp_path, ["sample"], load={"generator": finished.folder, "tokenizer": finished.folder})
    assert "this run has no finished generator" in project.refusal()
    assert not project.folder.exists()


def test_the_runs_own_folder_is_refused(finished):
    project = finished.later(finished.out, ["tokenize"])
    assert "this is the folder of the run itself" in project.refusal()
    project.table["load"]["tokenizer"] = str(finished.artifact("tokenizer"))
    message = project.refusal()
    assert "which would load its own artifact" in message
    assert "--set run.name=NAME" in message


def test_a_published_checkpoint_becomes_an_artifact_once(published, tmp_path):
    project = importing(published, tmp_path / "out").run()
    about = read_json(project.artifact("tokenizer") / "component.json")
    assert about["imported_from"] == published.name
    weights = project.weights()
    assert weights
    changed_at = (project.artifact("tokenizer") / "model.safetensors").stat().st_mtime_ns
    project.run()
    assert (project.artifact("tokenizer") / "model.safetensors").stat().st_mtime_ns == changed_at
    assert_same_weights(project.weights(), weights)


def test_a_damaged_artifact_of_a_published_checkpoint_is_imported_again(published, tmp_path):
    project = importing(published, tmp_path / "out").run()
    weights = project.artifact("tokenizer") / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1])
    assert "is damaged; it is imported again" in project.run().printed
    assert weights.read_bytes() == before
    weights.write_bytes(before[:-1])
    (weights.parent / "manifest.json").unlink()
    assert "is damaged; it is imported again" in project.run().printed
    assert weights.read_bytes() == before
    published.unlink()
    assert "what this run took from it is used" in project.run().printed


def test_a_checkpoint_with_other_weights_is_another_artifact(published, tmp_path):
    project = importing(published, tmp_path / "out").run()
    first = project.artifact("tokenizer")
    weights = load_file(published)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    save_file(weights | {name: weights[name] + 1}, published)
    assert project.run().artifact("tokenizer") != first


def test_an_importer_of_another_kind_is_refused(published, tmp_path):
    project = importing(published, tmp_path / "out")
    project.table["load"]["generator"] = project.table["load"]["tokenizer"]
    project.table["stage"].append({"use": "sample", "num_samples": 2})
    assert "[load] generator: the importer 'robustok' makes a tokenizer" in project.refusal()


def test_a_file_that_is_no_checkpoint_is_refused_before_anything_is_written(tmp_path):
    file = tmp_path / "published.safetensors"
    file.write_bytes(b"not a checkpoint")
    project = importing(file, tmp_path / "out")
    assert "published.safetensors: this is a text file (not a checkpoint ...)" in project.refusal()
    assert not project.out.exists()


def test_weights_that_are_not_finite_are_refused_before_anything_is_written(published, tmp_path):
    weights = load_file(published)
    weights["quantize.embedding.weight"][3, 0] = torch.inf
    save_file(weights, published)
    project = importing(published, tmp_path / "out")
    assert "weights are NaN or infinite: quantize.embedding.weight (1 of 512 values)" in project.refusal()
    assert not project.out.exists()


def test_an_importer_that_does_not_look_for_them_lets_no_weights_through_that_are_not_finite(tmp_path):
    class Careless(Importer):
        Config = CarelessConfig
        makes = "tokenizer"

        def __init__(self, config):
            self.config = config

        def load(self, path, registry):
            tokenizer = registry.build("tokenizer", TABLES["tokenizer"])
            tokenizer.quantizer.embedding.data[0] = torch.nan
            return TABLES["tokenizer"], tokenizer, {}

    (tmp_path / "weights").touch()
    registry = registry_with(importer={"careless": Careless})
    with pytest.raises(RunError, match=r"weights are NaN or infinite: quantizer.embedding \(4 of 128"):
        read_published(registry.spec("importer", {"use": "careless"}), tmp_path / "weights", registry)


def test_where_the_model_of_a_file_cannot_be_built_the_file_is_named(tmp_path):
    class Vast(Importer):
        Config = CarelessConfig
        makes = "tokenizer"

        def __init__(self, config):
            self.config = config

        def load(self, path, registry):
            return registry.build("tokenizer", TABLES["tokenizer"] | {"channel_multipliers": [1, 576]})

    (tmp_path / "weights").touch()
    registry = registry_with(importer={"vast": Vast})
    with pytest.raises(RobustokError, match="the model of these weights cannot be built: .*576") as caught:
        read_published(registry.spec("importer", {"use": "vast"}), tmp_path / "weights", registry)
    assert caught.value.where == str(tmp_path / "weights")
    assert "options of the importer may say otherwise" in caught.value.hint


def test_a_checkpoint_in_several_files_is_another_artifact_if_one_of_them_changes(published, tmp_path):
    index = write_sharded(tmp_path / "sharded", load_file(published))
    project = importing(index, tmp_path / "out").run()
    first, whole = project.artifact("tokenizer"), importing(published, tmp_path / "whole").run()
    assert_same_weights(project.weights(), whole.weights())
    shard = index.with_name("part-1.safetensors")
    weights = load_file(shard)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    save_file(weights | {name: weights[name] + 1}, shard)
    assert project.run().artifact("tokenizer") != first
    shard.unlink()
    assert "1 of the 2 files that this index names are missing: part-1.safetensors" in project.refusal()
