"""Finished stages that a run takes from another run instead of making them again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from project import Project, assert_same_weights
from robustok_core import Recipe, RobustokError, load_registry
from robustok_core.runs import reuse
from robustok_core.runs.files import read_json
from robustok_core.runs.fingerprinting import fingerprints
from robustok_core.runs.step_log import take_lines
from robustok_core.runs.verify import verified

EVALUATION = {"use": "evaluate_tokenizer", "limit": 20, "metrics": {"psnr": {"use": "psnr"}}}


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Project:
    """A finished run; not to be changed."""
    return Project(tmp_path_factory.mktemp("first"), ["train_tokenizer", EVALUATION]).run()


def another(out: Path, **changes) -> Project:
    project = Project(out, ["train_tokenizer", EVALUATION], **changes)
    project.table["run"]["name"] = "another"
    return project


def test_a_stage_that_another_run_finished_is_taken_with_its_results(first, tmp_path):
    project = another(tmp_path).run(reuse=[first.folder])
    assert f"train_tokenizer: done before, in {first.folder}" in project.printed
    assert project.results == first.results
    assert_same_weights(project.weights(), first.weights())
    entries = read_json(project.folder / "run.json")["stages"].values()
    assert {entry["taken_from"] for entry in entries} == {str(first.folder.resolve())}
    assert project.logged() == first.logged()
    assert project.logged("train_tokenizer")
    assert not any(one.damaged for one in verified(project.folder))
    assert "done before, unchanged" in another(tmp_path).run().printed  # and it is then its own


def test_a_stage_that_was_taken_before_names_the_run_that_made_it(first, tmp_path):
    second = another(tmp_path / "second").run(reuse=[first.folder])
    third = another(tmp_path / "third").run(reuse=[second.folder])
    assert f"train_tokenizer: done before, in {second.folder}" in third.printed
    entries = read_json(third.folder / "run.json")["stages"].values()
    assert {entry["taken_from"] for entry in entries} == {str(first.folder.resolve())}


def test_lines_of_a_begun_stage_are_replaced_by_those_of_the_stage_that_is_taken(first, tmp_path):
    fingerprint = first.logged("train_tokenizer")[0]["fingerprint"]
    log = tmp_path / "metrics.jsonl"
    begun = {"stage": "train_tokenizer", "fingerprint": fingerprint, "step": 0, "loss": 7.0}
    part, other = {**begun, "fingerprint": f"{fingerprint}-0.5"}, {**begun, "fingerprint": "other"}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in (begun, other, part)) + '{"stage": "cut')
    take_lines(first.folder / "metrics.jsonl", log, fingerprint)
    assert [json.loads(line) for line in log.read_text().splitlines()] == [other, *first.logged("train_tokenizer")]


def test_a_stage_whose_files_go_away_while_they_are_taken_is_made_here(first, tmp_path, copied, monkeypatch):
    gone = copied(first)
    link = reuse._link
    monkeypatch.setattr(
        reuse, "_link", lambda *paths: (shutil.rmtree(gone / "artifacts", ignore_errors=True), link(*paths))
    )
    project = another(tmp_path).run(reuse=[gone])
    assert "train_tokenizer: done before" not in project.printed
    assert_same_weights(project.weights(), first.weights())


def test_only_unchanged_stages_are_taken_from_a_folder_of_runs(first, tmp_path):
    project = Project(tmp_path, ["train_tokenizer", {**EVALUATION, "limit": 10}]).run(reuse=[first.out])
    entries = read_json(project.folder / "run.json")["stages"]
    taken = {name.partition("-")[0]: "taken_from" in entry for name, entry in entries.items()}
    assert taken == {"train_tokenizer": True, "evaluate_tokenizer": False}


@pytest.mark.parametrize("change", [{"perturbation": {"beta": 0.5}}, {"run": {"seed": 4}}])
def test_nothing_is_taken_for_another_recipe_or_seed(change, first, tmp_path):
    project = another(tmp_path, **change).run(reuse=[first.folder])
    assert not any("taken_from" in entry for entry in read_json(project.folder / "run.json")["stages"].values())
    assert project.results != first.results


def test_what_is_damaged_there_is_made_again_here(first, tmp_path, copied):
    damaged = copied(first)
    weights = damaged / "artifacts" / first.artifact("tokenizer").name / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    project = another(tmp_path).run(reuse=[damaged])
    assert "train_tokenizer: done before" not in project.printed
    assert_same_weights(project.weights(), first.weights())


@pytest.fixture
def copied(tmp_path):
    """Copies a run's folder, so that it can be damaged."""
    return lambda project: Path(shutil.copytree(project.folder, tmp_path / "damaged" / project.folder.name))


def test_a_place_that_holds_no_run_is_refused_before_anything_runs(first, tmp_path):
    project = another(tmp_path / "out")
    file, above = tmp_path / "file", tmp_path / "above"
    file.write_text("")
    shutil.copytree(first.folder, above / "study" / "one-seed0")
    for place, message in (
        (Path("nowhere"), "there is no such folder: nowhere"),
        (file, "file is a file"),
        (above, f"above is no run, and holds none (did you mean {above / 'study'}?)"),
    ):
        with pytest.raises(RobustokError) as caught:
            project.run(reuse=[place])
        assert message in str(caught.value)
        assert str(caught.value).startswith("--reuse: ")
    assert not project.folder.exists()


def test_fingerprints_are_known_before_anything_runs(first, tmp_path):
    registry = load_registry()
    planned = fingerprints(
        Recipe.from_table(another(tmp_path).table).resolve(registry), registry=registry, out=tmp_path
    )
    assert planned == read_json(first.folder / "run.json")["current"]
    assert list(tmp_path.iterdir()) == []
