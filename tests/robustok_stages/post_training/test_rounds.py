"""Post-training in rounds: new pairs, and training goes on from the decoder of the round before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from project import POST_TRAINING, STAGES, TABLES, Project, changed, contents
from robustok_core.runs.files import read_tensors
from robustok_stages.tokenizer.opponents import OPPONENTS_FILE

ROUND = {"another_round": True}
GFD = "compare_decoders/{}_gfd_fashion_classifier"


@pytest.fixture(scope="module")
def second(post_trained, tmp_path_factory) -> Project:
    """A second round of `post_trained`, in a run of its own."""
    out = tmp_path_factory.mktemp("second")
    project = post_trained.later(out, POST_TRAINING, load=("tokenizer", "generator"), make_pairs=ROUND)
    return project.run()


def codes(project: Project) -> dict[str, bytes]:
    parts = contents(project.artifact("pairs") / "parts")
    return {name: content for name, content in parts.items() if name.endswith(".npy")}


def opponent(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / OPPONENTS_FILE)


def test_a_round_begins_where_the_one_before_ended(post_trained, second):
    kept = f"sigma{post_trained.results['compare_decoders/kept_sigma'].value:g}"
    assert second.results[GFD.format("before")] != post_trained.results[GFD.format("before")]
    ended = post_trained.results[GFD.format(kept)].value
    assert second.results[GFD.format("before")].value == pytest.approx(ended, rel=1e-6)
    assert second.results[GFD.format("sigma0.5")].value != pytest.approx(ended, rel=1e-3)


def test_its_pairs_are_drawn_anew(post_trained, tmp_path):
    latents = {"post_trainer": {**TABLES["post_trainer"], "pairs": "latents"}}  # those that no decoder changes
    made = []
    for stage, options in (("train_tokenizer", {}), ("compare_decoders", ROUND)):
        project = post_trained.later(
            tmp_path / stage, ["make_pairs"], load=["generator"], make_pairs=options, **latents
        )
        project.table["load"]["tokenizer"] = str(post_trained.artifact("tokenizer", stage=stage))
        made.append(codes(project.run()))
    first, other = made
    assert {name for name in first if first[name] == other[name]} == {name for name in first if "sigma1" in name}


def test_its_discriminator_goes_on_too(post_trained, second):
    main, first, other = (
        opponent(project.artifact("tokenizer", stage=stage))
        for project, stage in (
            (post_trained, "train_tokenizer"),
            (post_trained, "compare_decoders"),
            (second, "compare_decoders"),
        )
    )
    step = next(name for name in main if "/step/" in name)
    trained, of_one_round, of_two = (int(held[step]) for held in (main, first, other))
    assert of_two - of_one_round == of_one_round - trained > 0
    weights = [name for name in main if name.startswith("module/") and main[name].is_floating_point()]
    assert any(not torch.equal(first[name], other[name]) for name in weights)


def test_two_rounds_in_one_recipe(whole, tmp_path):
    project = whole(tmp_path)
    project.table["stage"] += [
        {**project.stage(name), "name": f"{name}2"} | (ROUND if name == "make_pairs" else {}) for name in POST_TRAINING
    ]
    project.run()
    after, again = (project.weights(stage=name) for name in ("compare_decoders", "compare_decoders2"))
    assert any(not torch.equal(after[name], again[name]) for name in after)
    ended = project.results[GFD.format("sigma0.5")].value
    assert project.results[GFD.format("before").replace("/", "2/")].value != ended  # other samples


@pytest.mark.parametrize("stages", [["post_train"], ["compare_decoders"], ["make_pairs", "post_train"]])
def test_a_round_without_new_pairs_is_refused_before_anything_runs(whole, tmp_path, stages):
    project = whole(tmp_path)
    project.table["stage"] += [{"use": name, **STAGES[name], "name": f"{name}2"} for name in stages]
    message = project.refusal()
    assert "this tokenizer is already post-trained" in message
    assert "stage 'compare_decoders' before this one post-trains it" in message
    assert "another_round = true" in message
    assert not list(tmp_path.iterdir())


def test_the_first_round_is_not_another_one(whole, trained, tmp_path):
    message = whole(tmp_path, make_pairs=ROUND).refusal()
    assert "stage.make_pairs.another_round: this tokenizer is not post-trained" in message
    project = trained.later(tmp_path, ["make_pairs"], load=("tokenizer", "generator"), make_pairs=ROUND)
    assert "stage.make_pairs.another_round: this tokenizer is not post-trained" in project.refusal()


def test_pairs_of_the_round_before_are_refused(post_trained, second, tmp_path):
    project = post_trained.later(tmp_path, ["post_train"], load=("tokenizer", "pairs"))
    project.table = changed(project.table, {"load": {"tokenizer": str(second.folder)}})
    assert "this tokenizer is already post-trained" in project.refusal()
