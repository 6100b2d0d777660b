"""A run: what is skipped, what is repeated, and what a failure or a new start leaves behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import robustok_core.runs.runner
from processes import AtStep, one_and_two
from project import (
    CODEBOOK_SIZE,
    IMAGE_SIZE,
    NUM_CLASSES,
    POST_TRAINING,
    STEPS_PER_EPOCH,
    TABLES,
    TO_SAMPLES,
    TRAIN_IMAGES,
    Project,
    assert_same_weights,
    recipe_of,
    registry_with,
)
from robustok_core import Recipe, RobustokError, RunError, hookimpl
from robustok_core.errors import Interrupted
from robustok_core.runs.checking import check
from robustok_core.runs.files import read_json
from robustok_core.runs.folder import RunFolder
from robustok_core.runs.stage_fingerprints import shaping

DIVERGING = {"epochs": 5, "optimizer": {"learning_rate": 1e30}}


def states(project: Project) -> list[str]:
    """The state of each stage that was ever begun, in order."""
    return [entry["state"] for entry in read_json(project.folder / "run.json")["stages"].values()]


def test_an_unchanged_stage_is_skipped_and_a_changed_one_runs_again_beside_the_old(tmp_path):
    project = Project(tmp_path).run()
    first = project.artifact("tokenizer")
    changed_at = (first / "model.safetensors").stat().st_mtime_ns
    assert "train_tokenizer: done before, unchanged" in project.run().printed
    assert (first / "model.safetensors").stat().st_mtime_ns == changed_at
    project.table["perturbation"]["beta"] = 0.5
    second = project.run().artifact("tokenizer")
    assert second != first
    assert first.exists()
    assert f"beta = {TABLES['perturbation']['beta']}" in (project.folder / "history" / "recipe-1.toml").read_text()
    assert "beta = 0.5" in (project.folder / "recipe.toml").read_text()


def test_a_skipped_stage_gives_the_results_that_it_gave_first(tmp_path):
    project = Project(tmp_path).run()
    first = project.results
    assert first["train_tokenizer/steps"].value == STEPS_PER_EPOCH
    assert project.run().results == first


def test_a_stage_whose_artifact_was_deleted_runs_again(tmp_path):
    project = Project(tmp_path).run()
    before = project.weights()
    shutil.rmtree(project.artifact("tokenizer"))
    assert "unchanged" not in project.run().printed
    assert_same_weights(project.weights(), before)


def test_an_option_that_does_not_affect_results_repeats_nothing_and_earlier_logs_stay(tmp_path):
    project = Project(tmp_path).run()
    first = project.artifact("tokenizer")
    project.stage("train_tokenizer").update(log_every=3, checkpoint_every=2)
    assert project.run().artifact("tokenizer") == first
    project.stage("train_tokenizer").update(log_every=1, epochs=2)
    project.run()
    steps = [*range(1, STEPS_PER_EPOCH + 1), *range(1, 2 * STEPS_PER_EPOCH + 1)]
    assert [line["step"] for line in project.logged()] == steps


def test_only_options_that_shape_the_result_count(registry):
    (stage,) = Recipe.from_table(recipe_of()).resolve(registry).stages
    counted = shaping(stage.spec)
    assert counted["epochs"] == stage.spec.config.epochs
    assert not counted.keys() & {"log_every", "checkpoint_every", "workers"}
    assert counted.keys() < stage.spec.table().keys()


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"seed": 4}},
        {"perturbation": {"delta": 5}},
        {"tokenizer": {"quantizer": {"use": "vq", "codebook_size": 2 * CODEBOOK_SIZE, "width": 4}}},
        {"data": {"train_limit": 79}},
    ],
    ids=["seed", "perturbation", "tokenizer", "data"],
)
def test_whatever_shapes_the_result_changes_the_fingerprint_of_a_stage_and_of_those_after_it(tmp_path, change):
    first, second = (
        Project(tmp_path / name, ["train_tokenizer", "tokenize"], **changes)
        for name, changes in (("first", {}), ("second", change))
    )
    for project in (first, second):
        project.stage("train_tokenizer")["epochs"] = 1 / STEPS_PER_EPOCH
        project.run()
    one, two = (read_json(project.folder / "run.json")["current"] for project in (first, second))
    assert one.keys() == two.keys()
    assert not [name for name in one if one[name] == two[name]]


def test_other_images_in_the_same_place_change_the_fingerprint(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (TRAIN_IMAGES, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    data = {"use": "npz", "path": str(tmp_path / "images.npz"), "image_size": IMAGE_SIZE}
    project = Project(tmp_path / "out", data=data, train_tokenizer={"epochs": 1 / STEPS_PER_EPOCH})
    labels = np.arange(TRAIN_IMAGES) % NUM_CLASSES
    artifacts = set()
    for images in (pixels, 255 - pixels):
        np.savez(data["path"], train_images=images, train_labels=labels, val_images=images, val_labels=labels)
        artifacts.add(project.run().artifact("tokenizer"))
    assert len(artifacts) == 2


def test_a_recipe_that_fails_is_not_stored_with_the_results_of_another(tmp_path):
    project = Project(tmp_path).run()
    project.stage("train_tokenizer").update(DIVERGING)
    with pytest.raises(RunError):
        project.run()
    assert not (project.folder / "results.json").exists()
    assert (project.folder / "history" / "results-1.json").exists()
    assert states(project) == ["done", "failed"]


class Interrupting:
    """A plugin that interrupts a stage before it begins."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    @hookimpl
    def robustok_step_logged(self, folder, stage, step, values):
        if stage == self.stage:
            raise KeyboardInterrupt


def test_finished_stages_are_not_repeated_after_an_interrupt(tmp_path):
    project = Project(tmp_path, ["train_tokenizer", "tokenize", "train_generator"])
    with pytest.raises(Interrupted, match="stopped in stage 'train_generator'") as caught:
        project.run(registry=registry_with(Interrupting("train_generator")))
    assert caught.value.hint == f"the same command starts this stage again: {project.folder}"
    assert states(project) == ["done", "done", "interrupted"]
    project.run()
    assert project.printed.count("done before, unchanged") == 2
    assert states(project) == ["done", "done", "done"]


def test_an_interrupted_fresh_run_goes_on_under_its_own_name(tmp_path):
    project = Project(tmp_path).run()
    ask = AtStep(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted) as caught:
        project.run(registry=registry_with(ask), fresh=True)
    assert "with --set run.name=tiny-2 instead of --fresh, resumes from the last checkpoint" in caught.value.hint
    project.table["run"]["name"] = "tiny-2"
    before = project.logged()
    assert len(before) == 1
    assert project.run().logged()[:1] == before, "it went on and did not begin again"
    assert not (tmp_path / "tiny-3").exists()


def test_a_folder_whose_first_write_was_cut_off_is_a_run_folder(tmp_path):
    project = Project(tmp_path)
    project.folder.mkdir()
    for name in (".lock", ".writing-run.json"):
        (project.folder / name).write_text("")
    assert project.run().artifact("tokenizer").is_dir()


def test_fresh_starts_over_in_a_new_folder(tmp_path):
    project = Project(tmp_path).run()
    before = project.weights()
    project.run(fresh=True)
    project.table["run"]["name"] = "tiny-2"
    assert_same_weights(before, project.weights())


def test_hooks_are_called_in_the_order_of_a_run(tmp_path):
    called = []

    class Listener:
        @hookimpl
        def robustok_run_started(self, folder, recipe):
            called.append(("run started", recipe["run"]["name"]))

        @hookimpl
        def robustok_stage_started(self, folder, stage):
            called.append(("stage started", stage))

        @hookimpl
        def robustok_stage_finished(self, folder, stage, results):
            called.append(("stage finished", stage))

        @hookimpl
        def robustok_run_finished(self, folder, results):
            called.append(("run finished", len(results)))

    project = Project(tmp_path).run(registry=registry_with(Listener()))
    stage = "train_tokenizer"
    expected = [("run started", "tiny"), ("stage started", stage), ("stage finished", stage)]
    assert called == [*expected, ("run finished", len(project.results))]
    called.clear()
    project.run(registry=registry_with(Listener()))
    assert called == [expected[0], ("run finished", len(project.results))]


def test_a_check_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Project(tmp_path, ["train_tokenizer", "tokenize"]).check()
    assert [list(stage.makes) for stage in plan.stages] == [["tokenizer"], ["latents"]]
    assert not list(tmp_path.iterdir())


def test_mistakes_of_load_and_of_stages_are_reported_together(tmp_path):
    load = {"tokenizer": tmp_path / "nowhere", "generator": tmp_path / "nowhere"}
    with pytest.raises(RobustokError) as caught:
        Project(tmp_path, ["sample"], load=load).run()
    assert str(caught.value).count("there is no such file or folder") == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "stages", [TO_SAMPLES[:2], TO_SAMPLES, (*TO_SAMPLES[:3], "make_pairs")], ids=["tokenize", "sample", "make_pairs"]
)
def test_shards_are_kept_until_their_stage_is_recorded_as_done(stages, tmp_path, monkeypatch):
    project, save = Project(tmp_path, stages), RunFolder.save

    def die_before_it_is_recorded(folder):
        if any(
            name.startswith(stages[-1]) and entry["state"] == "done" for name, entry in folder.record["stages"].items()
        ):
            raise RunError("killed")
        save(folder)

    monkeypatch.setattr(RunFolder, "save", die_before_it_is_recorded)
    assert project.refusal() == "killed"
    monkeypatch.undo()
    made, all_of_them = re.search(
        r"(\d+) of (\d+) shards exist already", project.run().printed.replace("\n", " ")
    ).groups()
    assert made == all_of_them
    assert not list((project.folder / "checkpoints").glob(f"{stages[-1]}-*"))


def test_processes_that_see_a_shared_folder_differently_do_the_same(tmp_path):
    """As on a network file system, which shows a new folder to some machines earlier than to others."""
    one_and_two(Path(__file__).with_name("folder_seen_otherwise.py"), tmp_path)
    assert read_json(tmp_path / "runs" / "tiny" / "run.json")["stages"] == {}


def test_the_main_process_chooses_the_folder_of_a_fresh_run(tmp_path):
    one_and_two(Path(__file__).with_name("free_name_seen_otherwise.py"), tmp_path)
    assert [torch.load(file) for file in tmp_path.glob("*.pt")] == [str(tmp_path / "runs" / "tiny-2")] * 2


@pytest.mark.parametrize("given", ["main_train", Path("r.toml"), None, {"run": {}}])
def test_what_is_no_recipe_is_one_message(given, tmp_path):
    for function in (robustok_core.runs.runner.run, check):
        with pytest.raises(RobustokError, match="^recipe: expected a Recipe, found .*Recipe.load"):
            function(given, out=tmp_path)


@pytest.mark.parametrize(
    ("stage", "change", "what"),
    [
        ("sample", {"classes": ["emu"]}, "emu"),  # the stage's own check refuses it
        ("sample", {"sampling": {"temperatur": 2.0}}, "temperatur"),  # which options there are depends on the generator
        ("post_trainer", {"sampling": {"temperatur": 2.0}}, "temperatur"),
        ("post_trainer", {"guidance": {"scale": 3.0}}, "guidance"),  # of a generator without it; of two stages
    ],
)
def test_mistakes_of_later_stages_are_said_and_refused_when_it_is_their_turn(tmp_path, caplog, stage, change, what):
    stages, options = TO_SAMPLES, {"generator": {**TABLES["generator"], "label_dropout": 0.0}}
    if stage == "post_trainer":
        stages, options = (*stages, *POST_TRAINING), {**options, "compare_decoders": {"guidance": {"scale": 1.0}}}
    project = Project(tmp_path, stages, **options, **{stage: change})
    assert what in project.refusal()
    assert not project.folder.exists()
    assert not caplog.messages
    project.run(until="train_generator")
    (warning,) = caplog.messages
    assert warning.startswith("this will be refused when the run goes on after train_generator: ")
    assert what in warning
    assert what in project.printed.partition(f"`robustok run {project.folder}` refuses:")[2]
    assert what in project.refusal()
    project.table = recipe_of(stages, **options)
    project.run(until="sample")
    assert len(caplog.messages) == 1
    assert "train_generator: done before, unchanged" in project.printed
    assert states(project).count("done") == 4
