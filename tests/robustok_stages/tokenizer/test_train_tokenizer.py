"""Main training as a user runs it: killed, interrupted, repeated, on several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from robustok_core import Recipe, RobustokError, RunError, hookimpl, load_registry, run
from robustok_core.errors import Interrupted
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.folder import find_artifact

GAN = {
    "reconstruction": {"use": "reconstruction"},
    "adversarial": {
        "use": "adversarial",
        "start": 0.3,
        "patch": {"width": 8, "layers": 2},
    },
}


#: More layers than 32 pixels allow; image terms come with it because its weight is adaptive.
DEEP = {**GAN, "adversarial": {"use": "adversarial", "patch": {"layers": 5}}}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(find_artifact(folder, "tokenizer") / "model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train(table: dict, out: Path, **kwargs) -> Path:
    run(Recipe.from_table(table), out=out, **kwargs)
    return out / table["run"]["name"]


class AtStep:
    """A plugin that acts after each logged step."""

    def __init__(self, step: int, act) -> None:
        self.step, self.act = step, act

    @hookimpl
    def robustok_step_logged(self, folder, stage, step, values):
        if step == self.step:
            self.act()


def registry_with(plugin):
    registry = load_registry()
    registry.add_plugin(plugin, "test")
    return registry


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_process_that_dies(action) -> None:
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tiny recipe with a discriminator and an average, trained without interruption."""
    table = recipe_of(train_tokenizer={"losses": GAN, "ema_decay": 0.9, "checkpoint_every": 4})
    return table, train(table, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step", [2, 5, 11, 15])
def test_a_run_killed_at_a_step_ends_with_the_same_weights_bit_for_bit(whole, tmp_path, step):
    table, uninterrupted = whole
    in_a_process_that_dies(lambda: train(table, tmp_path, registry=registry_with(AtStep(step, kill))))
    resumed = train(table, tmp_path)
    assert_same(weights(uninterrupted), weights(resumed))
    opponents = "opponents.safetensors"
    assert_same(
        read_tensors(find_artifact(uninterrupted, "tokenizer") / opponents),
        read_tensors(find_artifact(resumed, "tokenizer") / opponents),
    )
    logged = [line["step"] for line in lines(resumed)]
    assert logged == list(range(1, 16))


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "component.json", "run.json"])
def test_a_run_killed_while_it_writes_a_file_ends_with_the_same_weights(whole, tmp_path, monkeypatch, file):
    table, uninterrupted = whole

    def die_half_way(target: Path, *_):
        if target.name == file and (file != "run.json" or (target.parent / "checkpoints").exists()):
            target.with_name(f".writing-{target.name}").write_bytes(b"half")
            kill()

    def break_writing() -> None:
        import robustok_core.runs.components
        import robustok_core.runs.folder
        import robustok_training.checkpoint

        for module in (robustok_core.runs.folder, robustok_training.checkpoint, robustok_core.runs.components):
            for name in ("write_json", "write_tensors"):
                if hasattr(module, name):
                    real = getattr(module, name)
                    monkeypatch.setattr(
                        module, name, lambda target, value, real=real: (die_half_way(target), real(target, value))
                    )
        train(table, tmp_path)

    in_a_process_that_dies(break_writing)
    assert_same(weights(uninterrupted), weights(train(table, tmp_path)))


def test_an_interrupt_saves_a_checkpoint_and_the_same_command_resumes(whole, tmp_path):
    table, uninterrupted = whole
    ask = AtStep(6, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="stopped at step 6 of 15") as caught:
        train(table, tmp_path, registry=registry_with(ask))
    assert caught.value.exit_code == 130
    assert "resumes from the last checkpoint" in caught.value.hint
    state = read_json(tmp_path / "tiny" / "run.json")["stages"]
    assert [entry["state"] for entry in state.values()] == ["interrupted"]
    assert_same(weights(uninterrupted), weights(train(table, tmp_path)))
    assert [line["step"] for line in lines(tmp_path / "tiny")] == list(range(1, 16))


def test_two_processes_give_the_losses_and_the_codebook_of_one(tmp_path):
    quantizer = {"use": "vq", "codebook_size": 32, "width": 4, "codebook_update": "ema"}
    table = recipe_of(train_tokenizer={"epochs": 2, "losses": GAN})
    table["tokenizer"]["quantizer"] = quantizer
    one = train(table, tmp_path / "one")
    two = run_on_two(table, tmp_path / "two")
    for first, second in zip(lines(one), lines(two), strict=True):
        for name in first:
            if name.startswith(("tokenizer/", "loss/", "quantizer/", "adversarial", "perturbed")):
                assert second[name] == pytest.approx(first[name], rel=2e-3, abs=1e-5), (first["step"], name)
    ours, theirs = weights(one), weights(two)
    for name in (name for name in ours if name.startswith("quantizer.")):
        torch.testing.assert_close(theirs[name], ours[name], rtol=2e-3, atol=2e-4)


def test_accumulation_gives_the_losses_of_one_large_batch(tmp_path):
    one = lines(train(recipe_of(train_tokenizer={"epochs": 1}), tmp_path / "one"))
    two = lines(train(recipe_of(train_tokenizer={"epochs": 1, "accumulation": 4}), tmp_path / "two"))
    for first, second in zip(one, two, strict=True):
        assert second["tokenizer/loss"] == pytest.approx(first["tokenizer/loss"], rel=1e-4)
        assert second["perturbed_share"] == pytest.approx(0.25) == first["perturbed_share"]


def test_an_unchanged_stage_is_skipped_and_a_changed_one_runs_again_beside_the_old(tmp_path):
    table = recipe_of(train_tokenizer={"epochs": 1})
    folder = train(table, tmp_path)
    first = find_artifact(folder, "tokenizer")
    changed_at = (first / "model.safetensors").stat().st_mtime_ns
    train(table, tmp_path)
    assert (first / "model.safetensors").stat().st_mtime_ns == changed_at
    table["perturbation"]["beta"] = 0.5
    train(table, tmp_path)
    second = find_artifact(folder, "tokenizer")
    assert second != first
    assert first.exists()
    assert "beta = 0.25" in (folder / "history" / "recipe-1.toml").read_text()
    assert "beta = 0.5" in (folder / "recipe.toml").read_text()


def test_an_option_that_does_not_affect_results_repeats_nothing_and_earlier_logs_stay(tmp_path):
    folder = train(recipe_of(train_tokenizer={"epochs": 1}), tmp_path)
    first = find_artifact(folder, "tokenizer")
    train(recipe_of(train_tokenizer={"epochs": 1, "log_every": 3, "checkpoint_every": 2}), tmp_path)
    assert find_artifact(folder, "tokenizer") == first
    train(recipe_of(train_tokenizer={"epochs": 2}), tmp_path)
    assert [line["step"] for line in lines(folder)] == [*range(1, 6), *range(1, 11)]


def test_a_recipe_that_fails_is_not_stored_with_the_results_of_another(tmp_path):
    folder = train(recipe_of(train_tokenizer={"epochs": 1}), tmp_path)
    with pytest.raises(RunError):
        train(recipe_of(train_tokenizer={"epochs": 5, "optimizer": {"learning_rate": 1e30}}), tmp_path)
    assert not (folder / "results.json").exists()
    assert (folder / "history" / "results-1.json").exists()


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
    with pytest.raises(RunError, match="is not finite after step 8"):
        train(recipe_of(train_tokenizer={"checkpoint_every": 4}), tmp_path, registry=registry_with(plugin))
    kept = list((tmp_path / "tiny" / "checkpoints").rglob("step-*"))
    assert [path.name for path in kept] == ["step-000000004"]


def test_fresh_starts_over_in_a_new_folder(tmp_path):
    table = recipe_of(train_tokenizer={"epochs": 1})
    folder = train(table, tmp_path)
    run(Recipe.from_table(table), out=tmp_path, fresh=True)
    assert_same(weights(folder), weights(tmp_path / "tiny-2"))


def test_a_new_folder_is_chosen_before_another_process_can_have_made_it(tmp_path, monkeypatch):
    """The processes of a run first connect when the precision is settled; then the main process may run ahead."""
    import robustok_core.runs.runner

    table, meet = recipe_of(train_tokenizer={"epochs": 1}), robustok_core.runs.runner.auto_precision
    train(table, tmp_path)

    def meet_late() -> str:
        (tmp_path / "tiny-2").mkdir()
        return meet()

    monkeypatch.setattr(robustok_core.runs.runner, "auto_precision", meet_late)
    run(Recipe.from_table(table), out=tmp_path, fresh=True)
    assert (tmp_path / "tiny-2" / "results.json").exists()
    assert not (tmp_path / "tiny-3").exists()


def test_a_nan_loss_stops_the_run_with_one_message(tmp_path):
    table = recipe_of(train_tokenizer={"epochs": 5, "optimizer": {"learning_rate": 1e30}})
    with pytest.raises(RunError, match=r"tokenizer/loss are not finite at step \d"):
        train(table, tmp_path)
    assert not (tmp_path / "tiny" / "artifacts").exists()


def test_the_average_of_the_weights_is_what_is_kept(tmp_path):
    last = weights(train(recipe_of(train_tokenizer={"epochs": 1}), tmp_path / "a"))
    average = weights(train(recipe_of(train_tokenizer={"epochs": 1, "ema_decay": 0.5}), tmp_path / "b"))
    name = "decoder_network.conv_out.weight" if "decoder_network.conv_out.weight" in last else next(iter(last))
    assert not torch.equal(last[name], average[name])


def test_training_learns(tmp_path):
    logged = lines(train(recipe_of(train_tokenizer={"epochs": 12}), tmp_path))
    assert logged[-1]["loss/reconstruction"] < 0.5 * logged[0]["loss/reconstruction"]


@pytest.mark.parametrize(
    ("table", "key", "value", "words"),
    [
        ("tokenizer", "image_size", 16, "tokenizer.image_size is 16, but the images of [data] are 32 pixels wide"),
        ("perturbation", "delta", 33, "33"),
        ("perturbation", "beta", 0.01, "of a batch of 16 images is less than one image"),
        ("stage", "losses", DEEP, "needs images of"),
        ("stage", "batch_size", 81, "larger than the training split"),
        ("stage", "accumulation", 3, "does not divide into 3 equal parts"),
        ("run", "precision", "fp16", "needs a CUDA device"),
    ],
)
def test_components_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, table, key, value, words):
    if key == "precision" and torch.cuda.is_available():
        pytest.skip("fp16 fits a CUDA device")
    recipe = recipe_of()
    (recipe[table][0] if table == "stage" else recipe[table])[key] = value
    with pytest.raises(RobustokError) as caught:
        train(recipe, tmp_path / "out")
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["train_tokenizer", "train_generator"])
def test_a_training_whose_only_step_has_learning_rate_0_is_refused(tmp_path, stage):
    """Of 5 steps per epoch only one is left, the first of the warm-up."""
    table = recipe_of(TO_SAMPLES, **{stage: {"epochs": 0.2, "optimizer": {"warmup": 0.05}}})
    with pytest.raises(RobustokError, match=f"stage.{stage}.optimizer.warmup: the learning rate is 0 at every step"):
        train(table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_first_of_two_steps_of_a_warm_up_has_no_rate_and_the_second_has(tmp_path):
    folder = train(
        recipe_of(train_tokenizer={"epochs": 0.4, "optimizer": {"learning_rate": 1e-3, "warmup": 1.0}}), tmp_path
    )
    assert [line["tokenizer/learning_rate"] for line in lines(folder)] == [0.0, 5e-4]


def test_a_warm_up_that_begins_above_0_may_be_a_single_step(tmp_path):
    options = {"learning_rate": 1e-3, "warmup": 0.5, "warmup_learning_rate": 1e-4}
    (line,) = lines(train(recipe_of(train_tokenizer={"epochs": 0.2, "optimizer": options}), tmp_path))
    assert line["tokenizer/learning_rate"] == 1e-4


def test_a_training_without_a_loss_is_refused(registry):
    with pytest.raises(RobustokError, match=r"stage\.train_tokenizer: losses: there is no term"):
        Recipe.from_table(recipe_of(train_tokenizer={"losses": {}})).resolve(registry)
