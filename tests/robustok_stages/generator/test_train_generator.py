"""Training of a generator on latents: killed, measured, spread over processes, and what is refused."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from robustok_core import Draws, Recipe, RobustokError, hookimpl, load_registry, run
from robustok_core.runs.components import load_component
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.results import read_results
from robustok_core.runs.runner import check
from robustok_core.values.draws import derive_seed
from robustok_stages.generator.training_step import GeneratorTask
from robustok_toolkit.latent_files import LatentRows

LOADED = ("tokenizer", "latents")
FRECHET = {"gfd": {"use": "frechet", "features": {"use": "fashion_classifier"}}}


def train(table: dict, out: Path, **kwargs) -> Path:
    run(Recipe.from_table(table), out=out, **kwargs)
    return out / table["run"]["name"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(find_artifact(folder, "generator") / "model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def lines(folder: Path) -> list[dict]:
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in logged if line["stage"] == "train_generator"]


class KillAt:
    """A plugin that kills this process after a logged step."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def robustok_step_logged(self, folder, stage, step, values):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("step", [3, 8, 14])
def test_a_training_killed_at_a_step_ends_with_the_same_weights_bit_for_bit(trained, tmp_path, step):
    table = trained.later(tmp_path, ["train_generator"], load=LOADED)
    table["stage"][0]["checkpoint_every"] = 4

    def act() -> None:
        registry = load_registry()
        registry.add_plugin(KillAt(step), "kill")
        train(table, tmp_path, registry=registry)

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = train(table, tmp_path)
    assert_same(weights(folder), weights(trained.folder))
    assert [line["step"] for line in lines(folder)] == list(range(1, 16))


def test_loaded_latents_train_as_those_of_the_same_run(trained, tmp_path):
    """[load] accepts the run's folder and the artifact's folder."""
    table = trained.later(tmp_path, ["train_generator"], load=LOADED)
    table["load"]["latents"] = str(trained.artifact("latents"))
    del table["data"]
    assert_same(weights(train(table, tmp_path)), weights(trained.folder))


def test_an_epoch_is_a_pass_over_the_images_whatever_their_views(trained):
    results = read_results(trained.folder)
    assert LatentRows(trained.artifact("latents"), "train").views == 2
    assert results["train_generator/steps"].value == 3 * (80 // 16)
    assert results["train_generator/parameters"].value == sum(
        value.numel() for value in weights(trained.folder).values()
    )


def test_the_artifact_says_of_which_tokenizer_and_classes_it_is(trained, registry):
    about = read_json(trained.artifact("generator") / "component.json")
    tokenizer = trained.component("tokenizer")
    assert about["tokenizer"] == latent_fingerprint(tokenizer)
    assert about["class_names"][9] == "ankle boot"
    assert about["num_classes"] == 10
    assert about["space"]["codebook_size"] == 32


def test_measuring_changes_no_weight_and_logs_each_epoch_but_the_last(trained, tmp_path, registry):
    measure = {"num_samples": 30, "metrics": FRECHET, "batch_size": 16, "sampling": {"steps": 2}, "limit": 40}
    table = trained.later(
        tmp_path, ["train_generator"], load=LOADED, train_generator={"measure": measure, "ema_decay": 0.5}
    )
    folder = train(table, tmp_path / "measured")
    del table["stage"][0]["measure"]
    assert_same(weights(folder), weights(train(table, tmp_path / "unmeasured")))
    assert not torch.equal(weights(folder)["head.weight"], weights(trained.folder)["head.weight"]), (
        "the average is kept"
    )
    measured = [line for line in lines(folder) if "validation_loss" in line]
    assert [(line["step"], line["epoch"]) for line in measured] == [(5, 1.0), (10, 2.0)]
    about = {"stage", "fingerprint", "step", "epoch"}
    for line in measured:
        assert line.keys() - about == {"validation_loss", "gfd_fashion_classifier"}
        assert isinstance(line["gfd_fashion_classifier"], float)
    assert measured[0]["gfd_fashion_classifier"] != measured[1]["gfd_fashion_classifier"]


def test_another_measurement_does_not_train_the_generator_again(trained, tmp_path):
    table = trained.later(tmp_path, ["train_generator"], load=LOADED)
    folder = train(table, tmp_path)
    artifact, logged = find_artifact(folder, "generator"), lines(folder)
    table["stage"][0]["measure"] = {"num_samples": 30, "metrics": FRECHET}
    train(table, tmp_path)
    assert find_artifact(folder, "generator") == artifact
    assert lines(folder) == logged


def test_what_is_measured_is_what_the_files_of_that_moment_give(trained, tmp_path, registry):
    """The distance and loss logged after 2 of 3 epochs equal those of a 2-epoch training that is then sampled."""
    from robustok_core import Guidance
    from robustok_toolkit.generating import ImagesInMemory, decode_to_uint8, generate, labels_of
    from robustok_toolkit.image_features import ExtractedFeatures, SharedFeatures

    constant = {"optimizer": {"schedule": "constant", "learning_rate": 1e-2}}
    measure = {"num_samples": 24, "metrics": FRECHET, "every": 2.0, "batch_size": 7}
    table = trained.later(tmp_path, ["train_generator"], load=LOADED, train_generator={"measure": measure, **constant})
    (logged,) = [line for line in lines(train(table, tmp_path / "three")) if "validation_loss" in line]
    del table["stage"][0]["measure"]
    table["stage"][0]["epochs"] = 2
    two = train(table, tmp_path / "two")
    results = read_results(two)
    assert logged["validation_loss"] == pytest.approx(results["train_generator/validation_loss"].value, rel=1e-6)
    generator = load_component(registry, find_artifact(two, "generator"))
    tokenizer = load_component(
        registry,
        Path(table["load"]["tokenizer"])
        / "artifacts"
        / find_artifact(Path(table["load"]["tokenizer"]), "tokenizer").name,
    )
    indices, seed = torch.arange(24), derive_seed(table["run"]["seed"], "train_generator")
    labels = labels_of(range(10), indices)
    draws = Draws(seed=derive_seed(seed, "measure"), indices=indices, total=24)
    drawn = list(generate(generator, labels, draws, guidance=Guidance(), batch_size=24))
    populations = [
        ExtractedFeatures(
            images, name="images", networks=SharedFeatures(torch.device("cpu")), device=torch.device("cpu")
        )
        for images in (
            ImagesInMemory(decode_to_uint8(tokenizer, drawn[0]), labels),
            registry.build("dataset", table["data"]).validation,
        )
    ]
    expected = registry.build("sample_metric", FRECHET["gfd"]).compute(*populations)
    assert logged["gfd_fashion_classifier"] == pytest.approx(expected["gfd_fashion_classifier"].value, rel=1e-5)


def test_the_validation_loss_is_the_mean_over_the_validation_rows(trained, with_known_codes, tmp_path):
    """The known generator's loss has no randomness: a mean over rows, whatever the batches (40 = 2 x 16 + 8)."""
    table = trained.later(tmp_path, ["train_generator"], load=LOADED)
    table["generator"] = {"use": "known_codes"}
    folder = train(table, tmp_path, registry=with_known_codes)
    level = weights(folder)["level"]
    codes = LatentRows(trained.artifact("latents"), "validation").load(range(40)).latents.codes
    found = read_results(folder)["train_generator/validation_loss"].value
    assert found == pytest.approx(float((codes - level).square().mean()), rel=1e-5)


def test_parameters_that_a_generator_exempts_are_not_decayed(with_known_codes):
    from robustok_core.values.latents import LatentSpace
    from robustok_training.optimizer import OptimizerConfig

    space = LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=8)
    generator = with_known_codes.build("generator", {"use": "known_codes"}, space, 10)
    (trained,) = GeneratorTask(generator, OptimizerConfig(weight_decay=0.5)).trained_modules
    named = dict(trained.module.named_parameters())
    assert set(trained.not_decayed) == {"generator.level"} <= named.keys()
    optimizer = trained.optimizer.build(named, trained.not_decayed)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(generator.level): 0.0, id(generator.decayed): 0.5}


def test_two_processes_give_the_losses_of_one(trained, tmp_path):
    measure = {"num_samples": 11, "metrics": FRECHET, "sampling": {"steps": 2}}
    options = {"epochs": 2, "optimizer": {"learning_rate": 1e-3}, "measure": measure}
    table = trained.later(tmp_path, ["train_generator"], load=LOADED, train_generator=options)
    one = lines(train(table, tmp_path / "one"))
    two = lines(run_on_two(table, tmp_path / "two"))
    assert sum("gfd_fashion_classifier" in line for line in one) == 1
    for first, second in zip(one, two, strict=True):
        for name in set(first) - {"images_per_second", "stage", "fingerprint"}:
            tolerance = 2e-3
            assert second[name] == pytest.approx(first[name], rel=tolerance, abs=1e-5), (first["step"], name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 81}, "larger than the training split, which holds 80"),
        ({"accumulation": 3}, "does not divide into 3 equal parts"),
        (
            {"measure": {"sampling": {"temprature": 1}}},
            "stage.train_generator.measure.sampling.temprature: unknown key",
        ),
        (
            {"measure": {"guidance": {"scale": 2.0}}},
            "stage.train_generator.measure.guidance.scale: guidance of scale 2",
        ),
        (
            {"measure": {"num_samples": 20, "metrics": {"kid": {"use": "kid", "subset_size": 21}}}},
            "stage.train_generator.measure.metrics.kid: the samples: 20 images are too few for subsets of 21",
        ),
        ({"measure": {"reference": "nowhere"}}, "'nowhere' is neither 'validation' nor 'train' nor a file or folder"),
    ],
)
@pytest.mark.parametrize("loaded", [False, True])
def test_what_does_not_fit_is_refused_before_anything_is_written(trained, tmp_path, changes, words, loaded):
    table = trained.later(tmp_path, ["train_generator"], load=LOADED) if loaded else recipe_of(TO_SAMPLES)
    table["generator"]["label_dropout"] = 0.0
    stage = next(stage for stage in table["stage"] if stage["use"] == "train_generator")
    stage |= changes
    with pytest.raises(RobustokError, match=words.replace("(", r"\(")) as caught:
        train(table, tmp_path)
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_measuring_against_images_needs_them(trained, tmp_path):
    table = trained.later(tmp_path, ["train_generator"], load=LOADED, train_generator={"measure": {}})
    del table["data"]
    with pytest.raises(RobustokError, match="measure.reference: the reference 'validation' needs the table"):
        train(table, tmp_path)


def test_latents_of_another_tokenizer_are_refused(trained, tmp_path):
    other = recipe_of(train_tokenizer={"epochs": 0.2})
    other["run"] |= {"name": "other", "seed": 4}
    table = copy.deepcopy(trained.later(tmp_path, ["train_generator"], load=LOADED))
    table["load"]["tokenizer"] = str(train(other, tmp_path))
    for refuse in (check, lambda recipe: run(recipe, out=tmp_path)):
        with pytest.raises(RobustokError, match="latents of another tokenizer"):
            refuse(Recipe.from_table(table))
    assert not (tmp_path / "tiny").exists()


def test_the_precision_of_a_stage_affects_only_its_training_steps(trained, tmp_path):
    table, folder = trained.table, trained.folder
    stage = next(stage for stage in table["stage"] if stage["use"] == "train_generator")
    load = {"tokenizer": str(folder), "latents": str(folder)}
    weights = {}
    for precision in ("no", "bf16"):
        name = f"precision_{precision}"
        changed = {
            **table,
            "load": load,
            "run": {**table["run"], "name": name},
            "stage": [stage | {"precision": precision}],
        }
        run(Recipe.from_table(changed), out=tmp_path)
        weights[precision] = read_tensors(find_artifact(tmp_path / name, "generator") / "model.safetensors")
    ours = read_tensors(find_artifact(folder, "generator") / "model.safetensors")
    assert all(torch.equal(ours[name], weights["no"][name]) for name in ours)
    assert any(not torch.equal(ours[name], weights["bf16"][name]) for name in ours)
    assert {value.dtype for value in weights["bf16"].values()} == {torch.float32}
