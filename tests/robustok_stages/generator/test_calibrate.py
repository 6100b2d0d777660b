from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from click.testing import CliRunner

from project import CONTINUOUS, FLOW, TO_SAMPLES, Project
from robustok_core.runs.files import read_json, write_json
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep
from robustok_report.calibrate import calibrate
from robustok_toolkit.calibration import errors_of
from robustok_toolkit.rank_law import bins_for
from robustok_toolkit.trained_generator import load_generator
from robustok_training.batches import class_balanced_order


def test_it_compares_the_codes_that_are_drawn_along_held_out_images_with_the_true_ones(trained, tmp_path):
    stage = {"use": "calibrate", "limit": 30, "batch_size": 30, "scales": [1.0, 3.0]}
    later = Project(tmp_path, [stage], load=dict.fromkeys(("tokenizer", "generator"), trained.folder)).run()
    found = later.results["calibrate/changed"]
    assert found.num_images == 30
    assert list(found.details["by_scale"]) == ["1", "3"]

    generator, images = load_generator(trained.folder), trained.dataset().validation
    rows = class_balanced_order(images.labels)[:30]
    batch = images.load(rows.tolist())
    real = generator.tokenizer.encode_images(batch.images)
    draws = Draws(seed=derive_seed(3, "calibrate"), indices=rows, total=len(images))
    for scale in (1.0, 3.0):
        with torch.no_grad():
            drawn = generator.generator.sample_forced(
                batch.labels, draws, real=real, guidance=Guidance(scale=scale)
            ).codes
        expected = (drawn != real.codes).double()
        measured = found.details["by_scale"][f"{scale:g}"]
        assert measured["changed"] == pytest.approx(float(expected.mean()), abs=0.02)
        assert measured["changed_by_position"] == pytest.approx(expected.mean(0).tolist(), abs=0.04)


def test_ranks_are_summed_up_by_token_and_against_delta():
    ranks = torch.tensor([[0, 1, 64], [0, 2, 0], [0, 32, 0]])
    errors = errors_of(ranks, 128)  # the paper's share of 128 codes: delta = 3, the code itself and the two nearest
    assert errors.changed == pytest.approx(4 / 9)
    assert errors.changed_by_position == pytest.approx([0, 1, 1 / 3])
    assert errors.relative_rank == pytest.approx((1 + 2 + 32 + 64) / 128 / 4)
    assert errors.rank_by_position == pytest.approx([math.nan, 35 / 128 / 3, 0.5], nan_ok=True), "nothing to rank"
    assert errors.as_details()["rank_by_position"][0] is None
    assert errors.within_delta == pytest.approx(2 / 4)
    assert errors.shares == [0.25, 0.25, 0, 0, 0, 0.25, 0.25]


def test_what_would_fail_at_the_end_is_refused_before_anything_is_measured(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("robustok_toolkit.calibration.errors_of_generator", None)
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "figures"):
        ran = CliRunner().invoke(calibrate, [str(trained.folder), "--pdf", str(place)])
        assert "file is no folder" in str(ran.exception)
    unguided = trained.later(tmp_path / "runs", ["tokenize", "train_generator"], generator={"label_dropout": 0.0}).run()
    ran = CliRunner().invoke(calibrate, [str(unguided.folder), "--guidance", "1", "--guidance", "2"])
    assert "needs a generator that was trained with label dropout" in str(ran.exception)


def test_a_recipe_can_train_with_what_the_command_prints(trained, tmp_path):
    ran = CliRunner().invoke(calibrate, [str(trained.folder), "--limit", "20", "--guidance", "2"])
    assert ran.exit_code == 0, ran.output
    line = next(line for line in ran.output.splitlines() if "rank_law" in line).partition("perturbation = ")[2]
    shares = [float(share) for share in line.partition("[")[2].partition("]")[0].split(",")]
    assert len(shares) == bins_for(32)
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    project = Project(tmp_path, ["train_tokenizer"], perturbation={"use": "rank_law", "shares": shares, "beta": 0.5})
    assert project.run().results["train_tokenizer/steps"].value > 0


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    stage = {"use": "calibrate", "limit": 30, "batch_size": 30, "sigmas": [0.8, 0.4], "sampling": {"steps": 4}}
    project = Project(tmp_path_factory.mktemp("continuous"), (*TO_SAMPLES, stage), **CONTINUOUS, generator=FLOW)
    return project.run()


def test_of_vectors_it_measures_what_keeps_a_share_of_held_out_images(continuous):
    found = continuous.results["calibrate/error_size"]
    by_sigma = found.details["by_scale"]["1"]
    assert list(by_sigma) == ["0.8", "0.4"]
    assert found.value == by_sigma["0.8"]["size"] < by_sigma["0.4"]["size"]

    generator, images = load_generator(continuous.folder), continuous.dataset().validation
    rows = class_balanced_order(images.labels)[:30]
    batch = images.load(rows.tolist())
    real = generator.tokenizer.encode_images(batch.images)
    draws = Draws(seed=derive_seed(3, "calibrate"), indices=rows, total=len(images))
    keep, options = Keep(latents=real, sigma=0.4), type(generator.generator).Sampling(steps=4)
    with torch.no_grad():
        made = generator.generator.sample(batch.labels, draws, guidance=Guidance(), keep=keep, sampling=options).vectors
    errors = (made - real.vectors) / real.vectors.std(dim=1, correction=0, keepdim=True)
    assert by_sigma["0.4"]["size"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-3)


def test_the_command_shows_the_errors_of_vectors_beside_independent_noise(continuous):
    ran = CliRunner().invoke(calibrate, [str(continuous.folder), "--limit", "20", "--sigma", "0.9", "--set", "steps=4"])
    assert ran.exit_code == 0, ran.output
    rows = [line.split() for line in ran.output.splitlines()]
    (of_generator,) = [row for row in rows if row[:3] == ["1", "0.9", "made"]]
    (of_noise,) = [row for row in rows if row[:3] == ["1", "0.9", "noise"]]
    assert of_generator[3] == of_noise[3], "of the same size"
    assert of_generator[4:] != of_noise[4:]


def test_errors_of_vectors_are_not_measured_over_two_images_of_which_one_alone_has_no_directions(
    continuous, tmp_path, refused
):
    message = "the errors of vectors are measured over at least 3 images"
    assert message in refused("calibrate", continuous.folder, "--limit", "2")
    stage = {"use": "calibrate", "limit": 2}
    project = Project(tmp_path, (*TO_SAMPLES, stage), **CONTINUOUS, generator=FLOW)
    assert message in project.refusal()


def test_its_json_is_json_and_a_scale_is_a_number(trained, command, refused):
    code, output, _ = command("calibrate", trained.folder, "--limit", "20", "--json")
    assert code == 0
    assert 0 < json.loads(output)["1"]["changed"] <= 1
    code, _, errors = command("calibrate", trained.folder, "--guidance", "nan")
    assert code == 2
    assert "nan is not a finite number" in errors


def test_the_folder_of_an_artifact_and_a_study_are_refused_before_anything_is_loaded(trained, refused, tmp_path):
    (artifact,) = (trained.folder / "artifacts").glob("generator-*")
    for folder in (artifact, tmp_path):
        assert "this is not the folder of a run" in refused("calibrate", folder)


def test_other_held_out_images_than_the_runs_are_said(trained, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    record = read_json(run / "run.json")
    record["data"]["validation"] = "others"
    write_json(run / "run.json", {key: value for key, value in record.items() if key != "checksum"})
    code, _, errors = command("calibrate", run, "--limit", "20")
    assert code == 0
    assert "the held-out images of the run: the data set has others now, which are used" in errors


def test_sigmas_are_of_vectors(trained, tmp_path, refused):
    assert "sigmas are of vectors" in refused("calibrate", trained.folder, "--sigma", "0.5")
    project = Project(tmp_path, (*TO_SAMPLES, {"use": "calibrate", "sigmas": [0.5]}))
    assert "sigmas are of vectors, and this latent space has codes" in project.refusal()


def test_guidance_without_label_dropout_is_refused_before_anything_runs(tmp_path):
    project = Project(
        tmp_path, (*TO_SAMPLES, {"use": "calibrate", "scales": [1.0, 2.0]}), generator={"label_dropout": 0.0}
    )
    assert "needs a generator that was trained with label dropout" in project.refusal()
