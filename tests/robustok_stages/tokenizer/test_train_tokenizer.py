"""Main training as a user runs it: killed, interrupted, repeated, on several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from processes import AtStep, in_a_process_that_dies, kill
from project import (
    CODEBOOK_SIZE,
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
from robustok_core.runs.files import read_json, read_tensors

GAN = {
    "reconstruction": {"use": "reconstruction"},
    "adversarial": {"use": "adversarial", "start": 0.3, "patch": {"width": 8, "layers": 2}},
}


#: Its weight is adaptive, and there is no image term; it would begin when half of the training is done.
ALONE = {"adversarial": GAN["adversarial"] | {"start": 0.5}}
#: More layers than 32 pixels allow; image terms come with it because its weight is adaptive.
DEEP = {**GAN, "adversarial": {"use": "adversarial", "patch": {"layers": 5}}}


EPOCHS = 3
NUM_STEPS = EPOCHS * STEPS_PER_EPOCH
UNINTERRUPTED = {"epochs": EPOCHS, "losses": GAN, "ema_decay": 0.9, "checkpoint_every": 4}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Project:
    """A training with a discriminator and an average, without interruption."""
    return Project(tmp_path_factory.mktemp("whole"), train_tokenizer=UNINTERRUPTED).run()


@pytest.mark.parametrize("step", [2, 5, 11, 15])
def test_a_run_killed_at_a_step_ends_with_the_same_weights_bit_for_bit(whole, tmp_path, step):
    project = Project(tmp_path, train_tokenizer=UNINTERRUPTED)
    in_a_process_that_dies(lambda: project.run(registry=registry_with(AtStep(step, kill))))
    project.run()
    assert_same_weights(whole.weights(), project.weights())
    opponents = (read_tensors(one.artifact("tokenizer") / "opponents.safetensors") for one in (whole, project))
    assert_same_weights(*opponents)
    assert [line["step"] for line in project.logged()] == list(range(1, NUM_STEPS + 1))


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "component.json", "run.json"])
def test_a_run_killed_while_it_writes_a_file_ends_with_the_same_weights(whole, tmp_path, monkeypatch, file):
    project = Project(tmp_path, train_tokenizer=UNINTERRUPTED)

    def die_half_way(target: Path, *_):
        if target.name == file and (file != "run.json" or (target.parent / "checkpoints").exists()):
            target.with_name(f".writing-{target.name}").write_bytes(b"half")
            kill()

    def break_writing() -> None:
        import robustok_core.runs.components
        import robustok_core.runs.run_record
        import robustok_training.checkpoint

        for module in (robustok_core.runs.run_record, robustok_training.checkpoint, robustok_core.runs.components):
            for name in ("write_json", "write_tensors"):
                if hasattr(module, name):
                    real = getattr(module, name)
                    monkeypatch.setattr(
                        module, name, lambda target, value, real=real: (die_half_way(target), real(target, value))
                    )
        project.run()

    in_a_process_that_dies(break_writing)
    assert_same_weights(whole.weights(), project.run().weights())


def test_an_interrupt_saves_a_checkpoint_and_the_same_command_resumes(whole, tmp_path):
    project = Project(tmp_path, train_tokenizer=UNINTERRUPTED)
    ask = AtStep(6, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match=f"stopped at step 6 of {NUM_STEPS}") as caught:
        project.run(registry=registry_with(ask))
    assert caught.value.exit_code == 130
    assert "resumes from the last checkpoint" in caught.value.hint
    state = read_json(project.folder / "run.json")["stages"]
    assert [entry["state"] for entry in state.values()] == ["interrupted"]
    assert_same_weights(whole.weights(), project.run().weights())
    assert [line["step"] for line in project.logged()] == list(range(1, NUM_STEPS + 1))


def test_two_processes_give_the_losses_and_the_codebook_of_one(tmp_path):
    one, two = (Project(tmp_path / n, train_tokenizer={"epochs": 2, "losses": GAN}) for n in ("one", "two"))
    for project in (one, two):
        project.table["tokenizer"]["quantizer"]["codebook_update"] = "ema"
    for first, second in zip(one.run().logged(), two.run_on_two().logged(), strict=True):
        for name in first:
            if name.startswith(("tokenizer/", "loss/", "quantizer/", "adversarial", "perturbed")):
                assert second[name] == pytest.approx(first[name], rel=2e-3, abs=1e-5), (first["step"], name)
    ours, theirs = one.weights(), two.weights()
    for name in (name for name in ours if name.startswith("quantizer.")):
        torch.testing.assert_close(theirs[name], ours[name], rtol=2e-3, atol=2e-4)


def test_accumulation_gives_the_losses_of_one_large_batch(tmp_path):
    one = Project(tmp_path / "one").run().logged()
    two = Project(tmp_path / "two", train_tokenizer={"accumulation": 4}).run().logged()
    for first, second in zip(one, two, strict=True):
        assert second["tokenizer/loss"] == pytest.approx(first["tokenizer/loss"], rel=1e-4)
        assert second["perturbed_share"] == pytest.approx(TABLES["perturbation"]["beta"]) == first["perturbed_share"]


class NotANumber:
    """A plugin that spoils a gradient, not the loss, of one step."""

    @hookimpl
    def robustok_step_logged(self, folder, stage, step, values):
        if step == 7:
            self.weight.register_hook(lambda gradient: gradient * float("nan"))


def test_a_nan_gradient_never_reaches_a_checkpoint(tmp_path, monkeypatch):
    plugin = NotANumber()
    from robustok_stages.tokenizer.training_step import TokenizerStep

    real = TokenizerStep.__init__

    def remember(self, tokenizer, *rest):
        real(self, tokenizer, *rest)
        plugin.weight = tokenizer.last_layer

    monkeypatch.setattr(TokenizerStep, "__init__", remember)
    project = Project(tmp_path, train_tokenizer={"epochs": EPOCHS, "checkpoint_every": 4})
    with pytest.raises(RunError, match="is not finite after step 8"):
        project.run(registry=registry_with(plugin))
    kept = list((project.folder / "checkpoints").rglob("step-*"))
    assert [path.name for path in kept] == ["step-000000004"]


def test_a_nan_loss_stops_the_run_with_one_message(tmp_path):
    project = Project(tmp_path, train_tokenizer={"epochs": 5, "optimizer": {"learning_rate": 1e30}})
    with pytest.raises(RunError, match=r"tokenizer/loss are not finite at step \d"):
        project.run()
    assert not (project.folder / "artifacts").exists()


def test_the_average_of_the_weights_is_what_is_kept(tmp_path):
    last = Project(tmp_path / "last").run().weights()
    average = Project(tmp_path / "average", train_tokenizer={"ema_decay": 0.5}).run().weights()
    name = next(name for name in last if name.startswith("pixel_decoder."))
    assert not torch.equal(last[name], average[name])


def test_training_learns(tmp_path):
    logged = Project(tmp_path, train_tokenizer={"epochs": 12}).run().logged()
    assert logged[-1]["loss/reconstruction"] < 0.5 * logged[0]["loss/reconstruction"]


@pytest.mark.parametrize(
    ("table", "key", "value", "words"),
    [
        ("tokenizer", "image_size", 16, "tokenizer.image_size is 16, but the images of [data] are 32 pixels wide"),
        ("perturbation", "delta", CODEBOOK_SIZE + 1, str(CODEBOOK_SIZE + 1)),
        ("perturbation", "beta", 0.01, "of a batch of 16 images is less than one image"),
        ("stage", "losses", DEEP, "needs images of"),
        ("stage", "losses", ALONE, "losses.adversarial: loss adversarial: an adaptive weight needs an image term"),
        ("stage", "batch_size", TRAIN_IMAGES + 1, "larger than the training split"),
        ("stage", "accumulation", 3, "does not divide into 3 equal parts"),
        ("run", "precision", "fp16", "needs a CUDA device"),
    ],
)
def test_components_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, table, key, value, words):
    if key == "precision" and torch.cuda.is_available():
        pytest.skip("fp16 fits a CUDA device")
    project = Project(tmp_path / "out", **{"train_tokenizer" if table == "stage" else table: {key: value}})
    with pytest.raises(RobustokError) as caught:
        project.run()
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
    assert not project.out.exists()


@pytest.mark.parametrize("stage", ["train_tokenizer", "train_generator"])
def test_a_training_whose_only_step_has_learning_rate_0_is_refused(tmp_path, stage):
    """Only one step of an epoch is left, the first of the warm-up."""
    options = {"epochs": 1 / STEPS_PER_EPOCH, "optimizer": {"warmup": 0.05}}
    project = Project(tmp_path / "out", TO_SAMPLES, **{stage: options})
    with pytest.raises(RobustokError, match=f"stage.{stage}.optimizer.warmup: the learning rate is 0 at every step"):
        project.run()
    assert not project.out.exists()


@pytest.mark.parametrize("stage", ["train_tokenizer", "train_generator"])
def test_an_average_that_is_mostly_the_first_steps_weights_is_said_before_the_training(tmp_path, caplog, stage):
    options = {"epochs": 11 / STEPS_PER_EPOCH, "ema_decay": 0.95}
    check(Recipe.from_table(recipe_of(TO_SAMPLES, **{stage: options})))
    (record,) = caplog.records
    what = "60% of the average that is kept are the weights of the first of 11 steps (set ema_decay to at most 0.63,"
    assert f"stage.{stage}.ema_decay: {what}" in record.getMessage()
    assert 0.63 ** (11 - 1) < 0.01
    caplog.clear()
    for fits in ({"ema_decay": 0.9}, {"ema_decay": 0.95, "epochs": 1 / STEPS_PER_EPOCH}):
        check(Recipe.from_table(recipe_of(TO_SAMPLES, **{stage: options | fits})))
    assert not caplog.records


def test_the_first_of_two_steps_of_a_warm_up_has_no_rate_and_the_second_has(tmp_path):
    options = {"epochs": 2 / STEPS_PER_EPOCH, "optimizer": {"learning_rate": 1e-3, "warmup": 1.0}}
    logged = Project(tmp_path, train_tokenizer=options).run().logged()
    assert [line["tokenizer/learning_rate"] for line in logged] == [0.0, 5e-4]


def test_a_warm_up_that_begins_above_0_may_be_a_single_step(tmp_path):
    optimizer = {"learning_rate": 1e-3, "warmup": 0.5, "warmup_learning_rate": 1e-4}
    options = {"epochs": 1 / STEPS_PER_EPOCH, "optimizer": optimizer}
    (line,) = Project(tmp_path, train_tokenizer=options).run().logged()
    assert line["tokenizer/learning_rate"] == 1e-4


def test_a_training_without_a_loss_is_refused(registry):
    with pytest.raises(RobustokError, match=r"stage\.train_tokenizer: losses: there is no term"):
        Recipe.from_table(recipe_of(train_tokenizer={"losses": {}})).resolve(registry)
