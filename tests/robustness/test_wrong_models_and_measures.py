"""What a run gets from measures, generators, post-trainers, importers and stages is checked where it is called."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from attrs import frozen
from torch import nn

from project import COLOURS, Project, registry_with
from robustok_core import Latents, RobustokError, Stage
from robustok_generators.maskgit import MaskGIT
from robustok_hub.robustok import RobusTok
from robustok_metrics.fashion_classifier import FashionClassifier
from robustok_metrics.psnr import PSNR
from robustok_metrics.sample_frechet import SampleFrechet
from robustok_post_training.decoder import Decoder
from wrong import codes, message_of, not_finite, returning

# --- measures ------------------------------------------------------------------------------------


def evaluation(trained: Project, out: Any, **metric: Any) -> Project:
    stage = {"use": "evaluate_tokenizer", "metrics": {"one": metric}, "limit": 20}
    return trained.later(out, [stage])


@pytest.mark.parametrize(
    ("method", "change", "wanted"),
    [
        ("compute", lambda results: 1.0, "`compute` must return results by name, found float"),
        ("compute", lambda results: {"psnr": 1.0}, "the result 'psnr' must be a Result, found float"),
        ("compute", lambda results: {}, "`compute` must return results by name, found dict"),
        (
            "compute",
            lambda results: {"psnr": attrs.evolve(results["psnr"], value=float("nan"))},
            "the result 'psnr' is not a number (NaN)",
        ),
        ("state", list, "`state` must return tensors by name, found list"),
    ],
)
def test_what_a_metric_returns_is_checked(trained, tmp_path, method, change, wanted) -> None:
    wrong = returning(PSNR, method, change)
    message = message_of(evaluation(trained, tmp_path, use="wrong"), method, metric={"wrong": wrong})
    assert message == f"metric 'wrong': {wanted}"


def test_the_values_that_a_feature_network_returns_are_checked(trained, tmp_path) -> None:
    wrong = returning(FashionClassifier, "forward", not_finite)
    project = evaluation(trained, tmp_path, use="frechet", features={"use": "wrong"})
    message = message_of(project, "forward", features={"wrong": wrong})
    assert message.startswith("features 'wrong': `forward` returns features that are not finite")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda pooled: pooled[:, :3], "Tensor (1, 3) of torch.float32"),
        (lambda pooled: pooled.long(), "Tensor (1, 96) of torch.int64"),
    ],
)
def test_the_shape_and_type_of_features_are_checked_before_anything_runs(trained, tmp_path, change, found) -> None:
    wrong = returning(FashionClassifier, "forward", change)
    project = evaluation(trained, tmp_path / "runs", use="frechet", features={"use": "wrong"})
    refusal = project.refusal(registry=registry_with(features={"wrong": wrong}))
    assert "stage.evaluate_tokenizer.metrics.one: " in refusal
    assert f"features 'wrong': `forward` must be a tensor (1, 96) of floating point numbers, found {found}" in refusal
    assert not project.out.exists()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (list, "`compute` must return results by name, found list"),
        (lambda results: dict.fromkeys(results, 3), "must be a Result, found int"),
        (lambda results: None, "`compute` must return results by name, found NoneType"),
    ],
)
def test_what_a_sample_metric_returns_is_checked(trained, tmp_path, change, wanted) -> None:
    wrong = returning(SampleFrechet, "compute", change)
    stage = {"use": "evaluate_generator", "metrics": {"one": {**COLOURS, "use": "wrong"}}}
    message = message_of(trained.later(tmp_path, [stage], load=("samples",)), "compute", sample_metric={"wrong": wrong})
    assert message.startswith("sample metric 'wrong': ")
    assert wanted in message


# --- generators, post-trainers, importers, stages --------------------------------------------------


@pytest.mark.parametrize(
    ("method", "change", "wanted"),
    [
        (
            "loss",
            lambda losses: sum(losses.values()),
            "must return scalars by name, found Tensor () of torch.float32",
        ),
        ("loss", lambda losses: {k: v.detach() for k, v in losses.items()}, "its loss does not require a gradient"),
        ("loss", lambda losses: {k: v[None] for k, v in losses.items()}, "must be a floating point tensor of shape ()"),
        ("sample", codes(lambda c: c[:, :4]), "codes of `sample` must be a tensor (24, 16) of torch.int64, found"),
        ("sample", codes(lambda c: c + 32), "`sample` returns codes outside [0, 32)"),
        ("sample", lambda latents: latents.codes, "`sample` must return Latents, found Tensor"),
    ],
)
def test_what_a_generator_returns_is_checked(trained, tmp_path, method, change, wanted) -> None:
    stages = ["train_generator", "sample"]
    project = trained.later(tmp_path, stages, load=("tokenizer", "latents"), train_generator={"epochs": 1})
    project.table["generator"]["use"] = "wrong"
    project.stage("sample")["part_size"] = 24
    message = message_of(project, method, generator={"wrong": returning(MaskGIT, method, change)})
    assert message.startswith("generator 'wrong': ")
    assert wanted in message


@pytest.mark.parametrize(
    ("method", "change", "wanted"),
    [
        ("pair", codes(lambda c: c.float()), "codes of `pair` must be a tensor (16, 16) of torch.int64, found"),
        (
            "pair",
            codes(lambda c: c[:3]),
            "`pair` must be a tensor (16, 16) of torch.int64, found Tensor (3, 16)",
        ),
        ("pair", lambda latents: Latents(codes=latents.codes - 1), "`pair` returns codes outside [0, 32)"),
        ("trained", lambda modules: [], "`trained` must return at least one module of the tokenizer"),
        ("trained", lambda modules: [nn.Linear(2, 2)], "`trained` returns parameters that are not the tokenizer's"),
        ("trained", lambda modules: None, "`trained` must return at least one module of the tokenizer"),
    ],
)
def test_what_a_post_trainer_returns_is_checked(trained, tmp_path, method, change, wanted) -> None:
    project = trained.later(tmp_path, ["make_pairs", "post_train"], load=("tokenizer", "generator"))
    project.table["post_trainer"]["use"] = "wrong"
    project.stage("make_pairs")["num_pairs"] = 16
    message = message_of(project, method, post_trainer={"wrong": returning(Decoder, method, change)})
    assert message.startswith("post trainer 'wrong': ")
    assert wanted in message


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda loaded: loaded[:2], "`load` must return the component's table, the component and a report"),
        (lambda loaded: ({}, *loaded[1:]), "the table of `load` must name the component in `use`"),
        (lambda loaded: (loaded[0], nn.Linear(2, 2), {}), "`load` must return a Tokenizer, found Linear"),
        (lambda loaded: (*loaded[:2], {"key": 3}), "the report must map dropped keys to reasons, both strings"),
    ],
)
def test_what_an_importer_returns_is_checked(trained, tmp_path, change, wanted) -> None:
    tokenizer = trained.component()

    class Whole(RobusTok):
        def load(self, path, registry):
            return {"use": "conv_vq"}, tokenizer, {}

    project = evaluation(trained, tmp_path, use="psnr")
    project.table["load"] = {"tokenizer": {"path": str(trained.folder / "run.json"), "importer": {"use": "wrong"}}}
    with pytest.raises(RobustokError) as caught:
        project.check(registry_with(importer={"wrong": returning(Whole, "load", change)}))
    assert caught.value.what == f"importer 'wrong': {wanted}"


@frozen(kw_only=True)
class NoOptions:
    """No options."""


@pytest.mark.parametrize(
    ("results", "wanted"),
    [
        (None, "the `run` of stage 'wrong' must return numbers or Results by name, found None"),
        ({"one": "two"}, "the `run` of stage 'wrong' must return numbers or Results by name"),
        ([1.0], "the `run` of stage 'wrong' must return numbers or Results by name"),
    ],
)
def test_what_a_stage_returns_is_checked(tmp_path, results, wanted) -> None:
    class Wrong(Stage):
        Config = NoOptions

        def __init__(self, config):
            pass

        def run(self, context):
            return results

    with pytest.raises(RobustokError) as caught:
        Project(tmp_path, [{"use": "wrong"}]).run(registry=registry_with(stage={"wrong": Wrong}))
    assert wanted in caught.value.what
