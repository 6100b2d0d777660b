from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from project import COLOURS, CONTINUOUS, FLOW, TO_SAMPLES, Project
from robustok_commands.tune_guidance import tune_guidance
from robustok_core import RobustokError

SMALL = ["--samples", "20", "--confirm", "30", "--scale", "1", "--scale", "2"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Project:
    """A run that measured its samples; not to be changed."""
    gfd = {"use": "evaluate_generator", "metrics": {"gfd": COLOURS, "kid": {**COLOURS, "use": "kid", "subset_size": 8}}}
    return Project(tmp_path_factory.mktemp("measured"), (*TO_SAMPLES, gfd)).run()


def tuned(*arguments: str):
    ran = CliRunner().invoke(tune_guidance, arguments)
    if ran.exception is not None:
        raise ran.exception
    return ran


def test_the_winner_of_the_trials_is_printed_and_measured_again_with_other_samples(measured, tmp_path):
    out = tmp_path / "guidance.json"
    ran = tuned(str(measured.folder), *SMALL, "--out", str(out))
    found = json.loads(out.read_text())
    best = min(found["trials"], key=lambda trial: trial["gfd"])
    confirmed = min(found["confirmed"], key=lambda line: found["confirmed"][line]["value"])
    assert confirmed in ran.stdout.splitlines()
    assert ("its lead was chance" in ran.stderr) == (confirmed != best["guidance"])
    assert list(found["confirmed"]) == list(dict.fromkeys(["guidance = { scale = 1.0 }", best["guidance"]]))
    again = found["confirmed"][best["guidance"]]
    assert again["num_images"] == 30
    assert again["value"] != pytest.approx(best["gfd"])
    with pytest.raises(RobustokError, match="exists"):
        tuned(str(measured.folder), *SMALL, "--out", str(out))


def test_a_trial_depends_on_its_guidance_and_the_seed_alone(measured, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"]
    for file, seed, scale in zip(files, ("0", "0", "1"), ("2", "3", "2"), strict=True):
        tuned(str(measured.folder), *SMALL[:4], "--scale", "1", "--scale", scale, "--seed", seed, "--out", str(file))
    unguided = [json.loads(file.read_text())["trials"][0]["gfd"] for file in files]
    assert unguided[0] == pytest.approx(unguided[1], rel=1e-6)
    assert unguided[0] != pytest.approx(unguided[2], rel=1e-6)


def test_another_metric_of_the_recipe_can_be_tuned_and_an_unknown_one_is_refused(measured):
    assert "kid" in tuned(str(measured.folder), *SMALL, "--metric", "kid").stdout
    with pytest.raises(RobustokError, match="its recipe measures no 'fid'"):
        tuned(str(measured.folder), *SMALL, "--metric", "fid")
    with pytest.raises(RobustokError, match="subset_size"):
        tuned(str(measured.folder), "--samples", "4", "--metric", "kid")


def test_what_cannot_be_measured_here_is_refused_before_anything_is_sampled(tmp_path, monkeypatch):
    fdr = {"use": "fdr", "networks": {"one": COLOURS["features"]}, "held_out": "train"}
    other = {"use": "frechet", "features": {"use": "inception", "weights": str(tmp_path / "inception.pth")}}
    run = Project(tmp_path / "runs", (*TO_SAMPLES, {"use": "evaluate_generator", "metrics": {"fdr": fdr}})).run()
    monkeypatch.setattr("robustok_toolkit.generating.generate", None)
    with pytest.raises(RobustokError, match="fdr compares with a further set of real images .train."):
        tuned(str(run.folder), *SMALL)
    monkeypatch.setattr("robustok_commands.tune_guidance._DEFAULT_METRIC", other)
    with pytest.raises(RobustokError, match="inception.pth"):
        tuned(str(Project(tmp_path / "plain", TO_SAMPLES).run().folder), *SMALL)


def test_of_several_stages_the_first_metric_of_the_first_is_tuned(tmp_path):
    kid = {"use": "kid", "subset_size": 8, "features": COLOURS["features"]}
    stages = [
        {"use": "evaluate_generator", "metrics": {"gfd": COLOURS}},
        {"use": "evaluate_generator", "name": "again", "metrics": {"kid": kid, "gfd": COLOURS}},
    ]
    run = Project(tmp_path, (*TO_SAMPLES, *stages)).run()
    trials = tmp_path / "guidance.json"
    tuned(str(run.folder), *SMALL, "--out", str(trials))
    assert "gfd" in json.loads(trials.read_text())["trials"][0]


def test_where_the_recipe_measures_no_samples_the_frechet_distance_is_tuned(trained):
    assert "guidance = { scale = " in tuned(str(trained.folder), *SMALL, "--limit", "20").stdout
    with pytest.raises(RobustokError, match="its recipe measures no 'kid'"):
        tuned(str(trained.folder), *SMALL, "--metric", "kid")


def test_a_generator_without_a_null_class_is_refused(tmp_path):
    gfd = {"use": "evaluate_generator", "metrics": {"gfd": COLOURS}}
    run = Project(
        tmp_path, (*TO_SAMPLES, gfd), generator={"label_dropout": 0.0}, sample={"guidance": {"scale": 1.0}}
    ).run()
    with pytest.raises(RobustokError, match="trained without label dropout"):
        tuned(str(run.folder), *SMALL)


def test_the_sampler_of_the_recipe_is_tuned_and_set_changes_it(tmp_path):
    steps = {"sampling": {"method": "heun", "steps": 2}}
    gfd = {"use": "evaluate_generator", "metrics": {"gfd": COLOURS}}
    run = Project(tmp_path, (*TO_SAMPLES, gfd), **CONTINUOUS, generator=FLOW, sample=steps).run()
    place, other = tmp_path / "a.json", tmp_path / "b.json"
    ran = tuned(str(run.folder), *SMALL, "--out", str(place))
    assert "note: the sampler has the recipe's method = heun, steps = 2; --set changes them" in ran.stderr
    ran = tuned(str(run.folder), *SMALL, "--set", "steps=1", "--out", str(other))
    assert "the recipe's method = heun; --set" in ran.stderr
    found, changed = (json.loads(file.read_text()) for file in (place, other))
    assert [file["sampling"]["method"] for file in (found, changed)] == ["heun", "heun"]
    assert [file["sampling"]["steps"] for file in (found, changed)] == [2, 1]
    assert found["trials"][0]["gfd"] != changed["trials"][0]["gfd"]
