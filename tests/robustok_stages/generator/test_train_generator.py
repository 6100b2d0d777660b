"""Training of a generator on latents: killed, measured, spread over processes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from known_codes import KnownCodes, KnownCodesConfig
from processes import AtStep, in_a_process_that_dies, kill
from project import (
    CODEBOOK_SIZE,
    COLOURS,
    GENERATOR_EPOCHS,
    NUM_CLASSES,
    NUM_SAMPLES,
    STEPS_PER_EPOCH,
    TO_SAMPLES,
    TRAIN_IMAGES,
    VALIDATION_IMAGES,
    Project,
    assert_same_weights,
    registry_with,
)
from robustok_core import Draws, RobustokError
from robustok_core.runs.files import read_json
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.values.draws import derive_seed
from robustok_stages.generator.training_step import GeneratorTask
from robustok_toolkit.latent_files import LatentRows

LOADED = ("tokenizer", "latents")
FRECHET = {"gfd": COLOURS}


STAGE = "train_generator"
NUM_STEPS = GENERATOR_EPOCHS * STEPS_PER_EPOCH


def training(trained: Project, out: Path, **options: Any) -> Project:
    """A project that trains a generator on the latents of another."""
    return trained.later(out, [STAGE], load=LOADED, train_generator=options)


@pytest.mark.parametrize("step", [3, 8, 14])
def test_a_training_killed_at_a_step_ends_with_the_same_weights_bit_for_bit(trained, tmp_path, step):
    project = training(trained, tmp_path, checkpoint_every=4)
    in_a_process_that_dies(lambda: project.run(registry=registry_with(AtStep(step, kill))))
    project.run()
    assert_same_weights(project.weights("generator"), trained.weights("generator"))
    assert [line["step"] for line in project.logged()] == list(range(1, NUM_STEPS + 1))


def test_loaded_latents_train_as_those_of_the_same_run(trained, tmp_path):
    """[load] accepts the run's folder and the artifact's folder."""
    project = training(trained, tmp_path)
    project.table["load"]["latents"] = str(trained.artifact("latents"))
    del project.table["data"]
    assert_same_weights(project.run().weights("generator"), trained.weights("generator"))


def test_an_epoch_is_a_pass_over_the_images_whatever_their_views(trained):
    assert LatentRows(trained.artifact("latents"), "train").views == 2
    assert trained.results["train_generator/steps"].value == NUM_STEPS
    parameters = sum(value.numel() for value in trained.weights("generator").values())
    assert trained.results["train_generator/parameters"].value == parameters


def test_the_artifact_says_of_which_tokenizer_and_classes_it_is(trained):
    about = read_json(trained.artifact("generator") / "component.json")
    assert about["tokenizer"] == latent_fingerprint(trained.component("tokenizer"))
    assert about["class_names"][9] == "ankle boot"
    assert about["num_classes"] == NUM_CLASSES
    assert about["space"]["codebook_size"] == CODEBOOK_SIZE


def test_measuring_changes_no_weight_and_logs_each_epoch_but_the_last(trained, tmp_path):
    measure = {
        "num_samples": 30,
        "metrics": FRECHET,
        "batch_size": 16,
        "sampling": {"steps": 2},
        "limit": VALIDATION_IMAGES,
    }
    project = training(trained, tmp_path / "measured", measure=measure, ema_decay=0.5).run()
    weights = project.weights("generator")
    assert_same_weights(weights, training(trained, tmp_path / "unmeasured", ema_decay=0.5).run().weights("generator"))
    assert not torch.equal(weights["head.weight"], trained.weights("generator")["head.weight"]), "the average is kept"
    measured = [line for line in project.logged() if "validation_loss" in line]
    epochs = range(1, GENERATOR_EPOCHS)
    assert [(line["step"], line["epoch"]) for line in measured] == [(n * STEPS_PER_EPOCH, n) for n in epochs]
    about = {"stage", "fingerprint", "step", "epoch"}
    for line in measured:
        assert line.keys() - about == {"validation_loss", "gfd_fashion_classifier"}
        assert isinstance(line["gfd_fashion_classifier"], float)
    assert measured[0]["gfd_fashion_classifier"] != measured[1]["gfd_fashion_classifier"]


def test_another_measurement_does_not_train_the_generator_again(trained, tmp_path):
    project = training(trained, tmp_path).run()
    artifact, logged = project.artifact("generator"), project.logged()
    project.stage(STAGE)["measure"] = {"num_samples": 30, "metrics": FRECHET}
    project.run()
    assert project.artifact("generator") == artifact
    assert project.logged() == logged


def test_what_is_measured_is_what_the_files_of_that_moment_give(trained, tmp_path, registry):
    """The distance and loss logged after 2 of 3 epochs equal those of a 2-epoch training that is then sampled."""
    from robustok_core import Guidance
    from robustok_toolkit.generating import ImagesInMemory, decode_to_uint8, generate, labels_of
    from robustok_toolkit.image_features import ExtractedFeatures, Extraction, SharedFeatures

    constant = {"optimizer": {"schedule": "constant", "learning_rate": 1e-2}}
    measure = {"num_samples": NUM_SAMPLES, "metrics": FRECHET, "every": 2.0, "batch_size": 7}
    three = training(trained, tmp_path / "three", measure=measure, **constant).run()
    (logged,) = [line for line in three.logged() if "validation_loss" in line]
    two = training(trained, tmp_path / "two", epochs=2, **constant).run()
    assert logged["validation_loss"] == pytest.approx(two.results["train_generator/validation_loss"].value, rel=1e-6)
    tokenizer, generator = trained.component("tokenizer"), two.component("generator")
    indices, seed = torch.arange(NUM_SAMPLES), derive_seed(two.table["run"]["seed"], STAGE)
    labels = labels_of(range(NUM_CLASSES), indices)
    draws = Draws(seed=derive_seed(seed, "measure"), indices=indices, total=NUM_SAMPLES)
    drawn = list(generate(generator, labels, draws, guidance=Guidance(), batch_size=NUM_SAMPLES))
    extraction = Extraction(networks=SharedFeatures(torch.device("cpu")), device=torch.device("cpu"))
    populations = [
        ExtractedFeatures(images, extraction, name="images")
        for images in (
            ImagesInMemory(decode_to_uint8(tokenizer, drawn[0]), labels),
            two.dataset().validation,
        )
    ]
    expected = registry.build("sample_metric", FRECHET["gfd"]).compute(*populations)
    assert logged["gfd_fashion_classifier"] == pytest.approx(expected["gfd_fashion_classifier"].value, rel=1e-5)


def test_the_validation_loss_is_the_mean_over_the_validation_rows(trained, tmp_path):
    """The known generator's loss has no randomness: a mean over rows, whatever the batches (40 = 2 x 16 + 8)."""
    project = training(trained, tmp_path)
    project.table["generator"] = {"use": "known_codes"}
    project.run(registry=registry_with(generator={"known_codes": KnownCodes}))
    level = project.weights("generator")["level"]
    codes = LatentRows(trained.artifact("latents"), "validation").load(range(VALIDATION_IMAGES)).latents.codes
    found = project.results["train_generator/validation_loss"].value
    assert found == pytest.approx(float((codes - level).square().mean()), rel=1e-5)


def test_parameters_that_a_generator_exempts_are_not_decayed():
    from robustok_core.values.latents import LatentSpace
    from robustok_training.optimizer import OptimizerConfig

    space = LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=8)
    generator = KnownCodes(KnownCodesConfig(), space, NUM_CLASSES)
    (part,) = GeneratorTask(generator, OptimizerConfig(weight_decay=0.5)).trained_modules
    named = dict(part.module.named_parameters())
    assert set(part.not_decayed) == {"generator.level"} <= named.keys()
    optimizer = part.optimizer.build(named, part.not_decayed)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(generator.level): 0.0, id(generator.decayed): 0.5}


def test_two_processes_give_the_losses_of_one(trained, tmp_path):
    measure = {"num_samples": 11, "metrics": FRECHET, "sampling": {"steps": 2}}
    options = {"epochs": 2, "optimizer": {"learning_rate": 1e-3}, "measure": measure}
    one = training(trained, tmp_path / "one", **options).run().logged()
    two = training(trained, tmp_path / "two", **options).run_on_two().logged()
    assert sum("gfd_fashion_classifier" in line for line in one) == 1
    for first, second in zip(one, two, strict=True):
        for name in set(first) - {"images_per_second", "stage", "fingerprint"}:
            tolerance = 2e-3
            assert second[name] == pytest.approx(first[name], rel=tolerance, abs=1e-5), (first["step"], name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": TRAIN_IMAGES + 1}, f"larger than the training split, which holds {TRAIN_IMAGES}"),
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
    project = training(trained, tmp_path) if loaded else Project(tmp_path, TO_SAMPLES)
    project.table["generator"]["label_dropout"] = 0.0
    project.stage(STAGE).update(changes)
    with pytest.raises(RobustokError, match=words.replace("(", r"\(")) as caught:
        project.run()
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("epochs", "every", "said"), [(1, 1.0, True), (2, 3.0, True), (2, 1.0, False)])
def test_a_training_that_ends_before_its_first_measurement_says_so(trained, tmp_path, caplog, epochs, every, said):
    training(trained, tmp_path, measure={"every": every, "num_samples": 30, "metrics": FRECHET}, epochs=epochs).check()
    found = [record.getMessage() for record in caplog.records]
    assert [
        f"measure.every: nothing is measured, because the training ends first (epochs = {epochs})" in line
        for line in found
    ] == [True] * said


def test_measuring_against_images_needs_them(trained, tmp_path):
    project = training(trained, tmp_path, measure={})
    del project.table["data"]
    with pytest.raises(RobustokError, match="measure.reference: the reference 'validation' needs the table"):
        project.run()


def test_latents_of_another_tokenizer_are_refused(trained, tmp_path):
    other = Project(tmp_path, run={"name": "other", "seed": 4}, train_tokenizer={"epochs": 0.2}).run()
    project = training(trained, tmp_path)
    project.table["load"]["tokenizer"] = str(other.folder)
    for refuse in (project.check, project.run):
        with pytest.raises(RobustokError, match="latents of another tokenizer"):
            refuse()
    assert not project.folder.exists()


def test_the_precision_of_a_stage_affects_its_weights_as_that_of_a_run_does(trained, tmp_path):
    weights = {
        precision: training(trained, tmp_path / precision, precision=precision).run().weights("generator")
        for precision in ("no", "bf16")
    }
    ours = trained.weights("generator")
    assert_same_weights(ours, weights["no"])
    assert any(not torch.equal(ours[name], weights["bf16"][name]) for name in ours)
    assert {value.dtype for value in weights["bf16"].values()} == {torch.float32}


@pytest.mark.parametrize(("of_run", "of_stage"), [("no", "bf16"), ("bf16", "no"), ("bf16", None)])
def test_the_stages_precision_is_that_of_its_steps_losses_and_samples(trained, tmp_path, of_run, of_stage):
    seen: dict[str, set[bool]] = {"training": set(), "validation": set(), "sampling": set()}

    class Noting(KnownCodes):
        """Notes what computes in bfloat16."""

        def loss(self, latents, labels, *, draws, progress):
            seen["training" if torch.is_grad_enabled() else "validation"].add(torch.is_autocast_enabled("cpu"))
            return super().loss(latents, labels, draws=draws, progress=progress)

        def sample(self, labels, draws, **options):
            seen["sampling"].add(torch.is_autocast_enabled("cpu"))
            return super().sample(labels, draws, **options)

    measure = {"num_samples": 20, "metrics": FRECHET}
    options = {} if of_stage is None else {"precision": of_stage}
    project = training(trained, tmp_path, measure=measure, epochs=2, **options)
    project.table["generator"] = {"use": "noting"}
    project.table["run"]["precision"] = of_run
    project.run(registry=registry_with(generator={"noting": Noting}))
    assert seen == {what: {(of_stage or of_run) == "bf16"} for what in seen}
