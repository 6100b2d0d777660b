"""A component that breaks a promise of its kind is named where a run calls it: kind, name, method, expected, found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from attrs import frozen
from torch import nn

from project import COLOURS, Project, registry_with
from robustok_core import Latents, RobustokError, Stage
from robustok_core.cli.blame import blamed
from robustok_core.kinds.boundary import BrokenPromise
from robustok_data.arrays import ArrayImages
from robustok_data.fashion_mnist import FashionMNIST
from robustok_generators.maskgit import MaskGIT
from robustok_hub.robustok import RobusTok
from robustok_losses.adversarial import Adversarial
from robustok_losses.discriminator import Discriminator
from robustok_losses.reconstruction import PixelReconstruction
from robustok_metrics.fashion_classifier import FashionClassifier
from robustok_metrics.psnr import PSNR
from robustok_metrics.sample_frechet import SampleFrechet
from robustok_perturbations.top_delta import TopDelta
from robustok_post_training.decoder import Decoder
from robustok_quantizers.vq import VQ
from robustok_tokenizers.conv_vq import ConvVQ

Change = Callable[[Any], Any]


def returning(base: type, method: str, change: Change) -> type:
    """A component like `base`, except that `change` is applied to what one method returns."""
    original = getattr(base, method).__wrapped__
    return type("Wrong", (base,), {method: lambda self, *args, **kwargs: change(original(self, *args, **kwargs))})


def vectors(change: Change) -> Change:
    return lambda latents: latents.evolve(vectors=change(latents.vectors))


def codes(change: Change) -> Change:
    return lambda latents: latents.evolve(codes=change(latents.codes))


def not_finite(value: torch.Tensor) -> torch.Tensor:
    return value * float("nan")


def detached(value: torch.Tensor) -> torch.Tensor:
    return value.detach()


def message_of(project: Project, method: str, **components: Any) -> str:
    """The one message with which a run of a recipe that uses wrong components ends."""
    with pytest.raises(BrokenPromise) as caught:
        project.run(registry=registry_with(**components))
    assert caught.value.exit_code == 1
    assert str(caught.value.where).endswith(f"Wrong.{method}")
    return caught.value.what


WRONG_IN_TRAINING: list[tuple[str, type, str, Change, str]] = [
    ("tokenizer", ConvVQ, "encode", lambda latents: latents.vectors, "`encode` must return Latents, found Tensor"),
    (
        "tokenizer",
        ConvVQ,
        "encode",
        vectors(lambda v: v[:, :8]),
        "vectors of `encode` must be a tensor (16, 16, 4) of floating point numbers, found (16, 8, 4) of torch.float32",
    ),
    (
        "tokenizer",
        ConvVQ,
        "encode",
        codes(lambda c: c.int()),
        "codes of `encode` must be a tensor (16, 16) of torch.int64, found (16, 16) of torch.int32",
    ),
    ("tokenizer", ConvVQ, "encode", codes(lambda c: c + 32), "`encode` returns codes outside [0, 32)"),
    ("tokenizer", ConvVQ, "encode", vectors(not_finite), "`encode` returns vectors that are not finite"),
    (
        "tokenizer",
        ConvVQ,
        "decode_vectors",
        lambda images: images[:, :1],
        "images of `decode_vectors` must be a tensor (16, 3, 32, 32) of floating point numbers, found (16, 1, 32, 32)",
    ),
    (
        "tokenizer",
        ConvVQ,
        "decode_vectors",
        detached,
        "images of `decode_vectors` pass no gradient to the vectors: are they detached?",
    ),
    ("quantizer", VQ, "quantize", lambda latents: (latents, 0), "`quantize` must return Latents, found tuple"),
    (
        "quantizer",
        VQ,
        "quantize",
        vectors(detached),
        "vectors of `quantize` pass no gradient to its input (straight-through): are they detached?",
    ),
    ("quantizer", VQ, "quantize", codes(lambda c: c - 1), "`quantize` returns codes outside [0, 32)"),
    (
        "quantizer",
        VQ,
        "nearest",
        lambda near: near.float(),
        "codes of `nearest` must be a tensor (",
    ),
    ("perturbation", TopDelta, "perturb", lambda pair: pair[0], "`perturb` must return latents and a mask"),
    (
        "perturbation",
        TopDelta,
        "perturb",
        lambda pair: (pair[0], pair[1].float()),
        "the mask of `perturb` must be a tensor (16, 16) of torch.bool, found (16, 16) of torch.float32",
    ),
    (
        "perturbation",
        TopDelta,
        "perturb",
        lambda pair: (vectors(detached)(pair[0]), pair[1]),
        "vectors of `perturb` pass no gradient to the clean vectors: are they detached?",
    ),
    (
        "perturbation",
        TopDelta,
        "perturb",
        lambda pair: (vectors(not_finite)(pair[0]), pair[1]),
        "`perturb` returns vectors that are not finite",
    ),
    (
        "loss",
        PixelReconstruction,
        "forward",
        lambda term: term[None],
        "`forward` must be a floating point tensor of shape (), found (1,) of torch.float32",
    ),
    (
        "loss",
        PixelReconstruction,
        "forward",
        lambda term: 1.0,
        "`forward` must be a floating point tensor of shape (), found float",
    ),
    (
        "loss",
        PixelReconstruction,
        "forward",
        detached,
        "its values pass no gradient to the images that it compares: are they detached?",
    ),
]


def with_component(kind: str, out: Any) -> Project:
    """A training whose component of a kind is called "wrong", with the options that it has otherwise."""
    project = Project(out)
    tables = {
        "tokenizer": project.table["tokenizer"],
        "quantizer": project.table["tokenizer"]["quantizer"],
        "perturbation": project.table["perturbation"],
        "dataset": project.table["data"],
    }
    if kind == "loss":
        project.stage("train_tokenizer")["losses"] = {"term": {"use": "wrong"}}
    else:
        tables[kind]["use"] = "wrong"
    if kind == "perturbation" or (kind, tables["quantizer"]["use"]) == ("quantizer", "wrong"):
        project.table["perturbation"]["beta"] = 1.0 if kind == "perturbation" else 0.25
    return project


@pytest.mark.parametrize(("kind", "base", "method", "change", "wanted"), WRONG_IN_TRAINING)
def test_what_a_training_gets_from_a_component_is_checked(tmp_path, kind, base, method, change, wanted) -> None:
    message = message_of(with_component(kind, tmp_path), method, **{kind: {"wrong": returning(base, method, change)}})
    assert message.startswith(f"{kind} 'wrong': {wanted}")


def test_a_discriminators_loss_must_have_a_gradient(tmp_path) -> None:
    class Wrong(Adversarial):
        def __init__(self, config):
            super().__init__(config)
            self.opponent.__class__ = returning(Discriminator, "forward", detached)

    losses = {
        "l2": {"use": "reconstruction"},
        "gan": {"use": "wrong", "start": 0.0, "patch": {"width": 8, "layers": 2}},
    }
    message = message_of(Project(tmp_path, train_tokenizer={"losses": losses}), "forward", loss={"wrong": Wrong})
    assert message == "opponent 'Wrong': no gradient flows from the opponent's loss to its parameters"


# --- attributes, found by `check` ------------------------------------------------------------------


def built_with(base: type, **attributes: Any) -> type:
    """A component like `base` with other attributes."""

    class Wrong(base):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for name, value in attributes.items():
                setattr(self, name, value)

    return Wrong


@pytest.mark.parametrize(
    ("kind", "base", "attributes", "wanted"),
    [
        ("tokenizer", ConvVQ, {"space": None}, "`space` must be a LatentSpace, found NoneType"),
        ("tokenizer", ConvVQ, {"quantizer": None}, "`quantizer` must be set in a discrete space and None in"),
        ("tokenizer", ConvVQ, {"image_size": "32"}, "`image_size` must be an integer, found '32'"),
        ("quantizer", VQ, {"width": 0}, "`width` must be a positive integer, found 0"),
        ("dataset", FashionMNIST, {"class_names": ["one"]}, "it has 10 classes but 1 class names"),
        ("dataset", FashionMNIST, {"num_classes": 3, "class_names": ["a", "b", "c"]}, "has labels outside [0, 3)"),
        ("dataset", FashionMNIST, {"train": None}, "`train` must be Images, found NoneType"),
    ],
)
def test_attributes_are_checked_before_anything_runs(tmp_path, kind, base, attributes, wanted) -> None:
    project = with_component(kind, tmp_path)
    with pytest.raises(RobustokError) as caught:
        project.check(registry_with(**{kind: {"wrong": built_with(base, **attributes)}}))
    assert f"{kind} 'wrong': " in caught.value.what
    assert wanted in caught.value.what
    assert not project.folder.exists()


# --- data ----------------------------------------------------------------------------------------


def batch(**changes: Change) -> Change:
    return lambda loaded: attrs.evolve(
        loaded, **{name: change(getattr(loaded, name)) for name, change in changes.items()}
    )


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda loaded: (loaded.images, loaded.labels), "`load` must return an ImageBatch, found tuple"),
        (batch(images=lambda images: images.half()), "found (16, 3, 32, 32) of torch.float16"),
        (batch(images=lambda images: images * 255), "images of `load` must lie in [-1, 1]"),
        (batch(images=not_finite), "images of `load` must lie in [-1, 1]"),
        (batch(images=lambda images: images[:, :1]), "must be a tensor (16, 3, 32, 32) of torch.float32"),
        (batch(labels=lambda labels: labels.int()), "labels of `load` must be a tensor (16,) of torch.int64"),
        (batch(indices=lambda indices: indices + 1), "`load` must return the indices that it was asked for"),
    ],
)
def test_what_a_data_set_loads_is_checked(tmp_path, change, wanted) -> None:
    class Wrong(FashionMNIST):
        def __init__(self, config):
            super().__init__(config)
            self.train.__class__ = returning(ArrayImages, "load", change)

    message = message_of(with_component("dataset", tmp_path), "load", dataset={"wrong": Wrong})
    assert message.startswith("images 'wrong, train': ")
    assert wanted in message


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


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda pooled: pooled[:, :3], "`forward` must be a tensor (20, 96) of floating point numbers, found (20, 3)"),
        (not_finite, "`forward` returns features that are not finite"),
        (lambda pooled: pooled.long(), "`forward` must be a tensor (20, 96) of floating point numbers"),
    ],
)
def test_what_a_feature_network_returns_is_checked(trained, tmp_path, change, wanted) -> None:
    wrong = returning(FashionClassifier, "forward", change)
    project = evaluation(trained, tmp_path, use="frechet", features={"use": "wrong"})
    message = message_of(project, "forward", features={"wrong": wrong})
    assert message.startswith(f"features 'wrong': {wanted}")


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
        ("loss", lambda losses: sum(losses.values()), "`loss` must return scalars by name, found () of torch.float32"),
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
        ("pair", codes(lambda c: c[:3]), "codes of `pair` must be a tensor (16, 16) of torch.int64, found (3, 16)"),
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


# --- errors inside a component ---------------------------------------------------------------------


def test_an_error_in_a_plugins_code_keeps_its_traceback_and_names_component_and_method(tmp_path) -> None:
    class Wrong(PixelReconstruction):
        def forward(self, step):
            return {}["nothing"]

    with pytest.raises(KeyError) as caught:
        with_component("loss", tmp_path).run(registry=registry_with(loss={"wrong": Wrong}))
    line = blamed(caught.value)
    assert line is not None
    assert "loss 'wrong', method forward (" in line
    assert __file__ in line


def test_an_error_of_our_own_blames_nobody() -> None:
    with pytest.raises(ValueError, match="neither") as caught:
        len(Latents())
    assert blamed(caught.value) is None
