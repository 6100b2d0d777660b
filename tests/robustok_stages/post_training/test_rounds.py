"""Post-training in rounds: new pairs, and training goes on from the decoder of the round before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import pytest
import torch

from project import POST_TRAINING, STAGES, TABLES, Project, contents, record_as_it_is, registry_with
from robustok_core.runs.components import COMPONENT_FILE, OPPONENTS_FILE, WEIGHTS_FILE, read_component
from robustok_core.runs.files import read_tensors
from robustok_core.runs.fingerprints import content_fingerprint
from robustok_stages.tokenizer.train_tokenizer import TrainTokenizer
from robustok_toolkit.pair_files import made_of_pairs

ROUND = {"another_round": True}
TOKENIZERS = ("train_tokenizer", "compare_decoders")  # the stages that make one
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


def assert_goes_on(main: Path, one_round: Path, two_rounds: Path) -> None:
    """The discriminator of two rounds has trained for the steps of both, from that of one."""
    held = [read_tensors(folder / OPPONENTS_FILE) for folder in (main, one_round, two_rounds)]
    step = next(name for name in held[0] if "/step/" in name)
    in_main, in_one, in_two = (int(tensors[step]) for tensors in held)
    assert in_two - in_one == in_one - in_main > 0
    weights = [name for name in held[0] if name.startswith("module/") and held[0][name].is_floating_point()]
    assert any(not torch.equal(held[1][name], held[2][name]) for name in weights)


def test_its_discriminator_goes_on_too(post_trained, second):
    assert_goes_on(
        *(post_trained.artifact("tokenizer", stage=stage) for stage in TOKENIZERS), second.artifact("tokenizer")
    )


def test_its_tokenizer_and_card_name_every_round(post_trained, second, tmp_path, command):
    sigmas = [project.results["compare_decoders/kept_sigma"].value for project in (post_trained, second)]
    found = [read_component(project.artifact("tokenizer")).rounds for project in (post_trained, second)]
    assert found == [sigmas[:1], sigmas]
    for project, said in ((post_trained, f"{sigmas[0]:g}\n"), (second, f"{sigmas[0]:g}, {sigmas[1]:g}, in 2 rounds\n")):
        folder = tmp_path / project.folder.parent.name
        code, _, errors = command("push", project.folder, "me/net", "--to", folder)
        assert code == 0, errors
        assert f"decoder post-trained for sigma = {said}" in (folder / "README.md").read_text()


def test_two_rounds_in_one_recipe(whole, tmp_path):
    project = whole(tmp_path)
    project.table["stage"] += [
        {**project.stage(name), "name": f"{name}2"} | (ROUND if name == "make_pairs" else {}) for name in POST_TRAINING
    ]
    project.run()
    kept = project.artifact("tokenizer", stage="compare_decoders")
    assert made_of_pairs(project.artifact("pairs"))["tokenizer"] == content_fingerprint(kept / WEIGHTS_FILE)
    assert_goes_on(*(project.artifact("tokenizer", stage=stage) for stage in (*TOKENIZERS, "compare_decoders2")))


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


def test_pairs_are_refused_with_the_tokenizer_that_came_of_them(second, tmp_path):
    project = second.later(tmp_path, ["post_train"], load=("tokenizer", "pairs"))
    message = project.refusal()
    assert "this tokenizer is already post-trained" in message
    assert "load the tokenizer that the pairs were made with" in message


def test_a_tokenizer_that_is_not_here_may_be_post_trained(post_trained, tmp_path):
    project = post_trained.later(tmp_path, ["make_pairs"], load=["generator"], make_pairs=ROUND)
    table = read_component(post_trained.artifact("tokenizer")).table
    project.table["load"]["tokenizer"] = {"path": str(tmp_path / "not_here"), "expect": dict(table)}
    project.check(without_data=True)


@pytest.mark.parametrize("another", [False, True])
@pytest.mark.parametrize("stage", TOKENIZERS)
def test_an_imported_tokenizer_may_be_post_trained_or_not(post_trained, tmp_path, stage, another):
    folder = shutil.copytree(post_trained.artifact("tokenizer", stage=stage), tmp_path / "imported")
    record = json.loads((folder / COMPONENT_FILE).read_text())
    published = {"kind": "tokenizer", "table": record["table"], "imported_from": "post-train.pt"}
    (folder / COMPONENT_FILE).write_text(json.dumps(published))
    record_as_it_is(folder)
    options = {"another_round": another, "num_pairs": 4, "control": False}
    project = post_trained.later(tmp_path, ["make_pairs"], load=["generator"], make_pairs=options)
    project.table["load"]["tokenizer"] = str(folder)
    said = "it is not recorded whether the tokenizer of post-train.pt is post-trained already"
    assert project.run().printed.count(said) == 1


class TheirTraining(TrainTokenizer):
    """A stage that does not say whether its tokenizer is post-trained."""

    def plan(self, context):
        return {"tokenizer": attrs.evolve(super().plan(context)["tokenizer"], post_trained=None)}


@pytest.mark.parametrize("another", [False, True])
def test_a_tokenizer_that_a_stage_does_not_describe_may_be_post_trained_or_not(whole, tmp_path, another):
    theirs = {"use": "theirs", "name": "train_tokenizer"}
    project = whole(tmp_path, train_tokenizer=theirs, make_pairs={"another_round": another})
    project.check(registry=registry_with(stage={"theirs": TheirTraining}))


def test_a_round_after_one_that_no_record_counts_is_not_counted_either(whole, tmp_path, command):
    """As in what an earlier version post-trained."""
    project = whole(tmp_path).run()
    kept = project.artifact("tokenizer", stage="compare_decoders")
    record = json.loads((kept / COMPONENT_FILE).read_text())
    del record["rounds"]
    (kept / COMPONENT_FILE).write_text(json.dumps(record))
    record_as_it_is(kept)
    project.table["stage"] += [
        {**project.stage(name), "name": f"{name}2"} | (ROUND if name == "make_pairs" else {}) for name in POST_TRAINING
    ]
    project.run()
    assert read_component(project.artifact("tokenizer", stage="compare_decoders2")).rounds is None
    code, _, errors = command("push", project.folder, "me/net", "--to", tmp_path / "net")
    assert code == 0, errors
    assert ", in its last round\n" in (tmp_path / "net" / "README.md").read_text()


def test_decoders_without_discriminators_are_named_when_the_next_round_needs_them(whole, tmp_path):
    project = whole(tmp_path).run()
    kept = project.artifact("tokenizer", stage="compare_decoders")
    (kept / OPPONENTS_FILE).unlink()
    record_as_it_is(kept)
    project.table["stage"] += [
        {**project.stage(name), "name": f"{name}2"} | (ROUND if name == "make_pairs" else {}) for name in POST_TRAINING
    ]
    assert "there is no discriminator for adversarial" in project.refusal()
