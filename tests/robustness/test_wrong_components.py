"""A component that breaks a promise of its kind is named where a run calls it: kind, name, method, expected, found."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import attrs
import pytest
import tomli_w

from project import Project, registry_with
from robustok_core import Latents, RobustokError
from robustok_core.cli.blame import blamed
from robustok_data.arrays import ArrayImages
from robustok_data.fashion_mnist import FashionMNIST
from robustok_losses.adversarial import Adversarial
from robustok_losses.discriminator import Discriminator
from robustok_losses.reconstruction import PixelReconstruction
from robustok_perturbations.top_delta import TopDelta
from robustok_quantizers.vq import VQ
from robustok_tokenizers.conv_vq import ConvVQ
from wrong import Change, codes, detached, message_of, not_finite, returning, trained_elsewhere, vectors

WRONG_IN_TRAINING: list[tuple[str, type, str, Change, str]] = [
    ("tokenizer", ConvVQ, "encode", lambda latents: latents.vectors, "`encode` must return Latents, found Tensor"),
    (
        "tokenizer",
        ConvVQ,
        "encode",
        vectors(lambda v: v[:, :8]),
        "vectors of `encode` must be a tensor (16, 16, 4) of floating point numbers, found Tensor (16, 8, 4)",
    ),
    (
        "tokenizer",
        ConvVQ,
        "encode",
        codes(lambda c: c.int()),
        "codes of `encode` must be a tensor (16, 16) of torch.int64, found Tensor (16, 16) of torch.int32",
    ),
    ("tokenizer", ConvVQ, "encode", codes(lambda c: c + 32), "`encode` returns codes outside [0, 32)"),
    ("tokenizer", ConvVQ, "encode", vectors(not_finite), "`encode` returns vectors that are not finite"),
    (
        "tokenizer",
        ConvVQ,
        "decode_vectors",
        lambda images: images[:, :1],
        "images of `decode_vectors` must be a tensor (16, 3, 32, 32) of floating point numbers, found Tensor (16, 1,",
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
    ("quantizer", VQ, "quantize", codes(lambda c: c - 1), "`quantize` returns codes outside [0, 32), found -1 to "),
    (
        "quantizer",
        VQ,
        "nearest",
        lambda near: near.float(),
        "codes of `nearest` must be a tensor (",
    ),
    (
        "quantizer",
        VQ,
        "quantize",
        lambda latents: latents.evolve(losses=list(latents.losses.values())),
        "losses of `quantize` must be a dict of scalars by name, found list",
    ),
    (
        "quantizer",
        VQ,
        "quantize",
        lambda latents: latents.evolve(losses={"": latents.losses["commitment"]}),
        "a loss of `quantize` has the name ''; a name is text that is not empty and has no slash",
    ),
    (
        "quantizer",
        VQ,
        "quantize",
        vectors(trained_elsewhere),
        "vectors of `quantize` pass no gradient to its input (straight-through): are they detached?",
    ),
    (
        "tokenizer",
        ConvVQ,
        "encode",
        lambda latents: latents.evolve(losses=None),
        "losses of `encode` must be a dict of scalars by name, found NoneType",
    ),
    ("perturbation", TopDelta, "perturb", lambda pair: pair[0], "`perturb` must return latents and a mask"),
    (
        "perturbation",
        TopDelta,
        "perturb",
        lambda pair: (codes(lambda c: (c + 1) % 32)(pair[0]), pair[1]),
        "`perturb` changes codes, but the vectors of these tokens are not those of the new codes",
    ),
    (
        "perturbation",
        TopDelta,
        "perturb",
        lambda pair: (vectors(trained_elsewhere)(pair[0]), pair[1]),
        "vectors of `perturb` pass no gradient to the clean vectors: are they detached?",
    ),
    (
        "perturbation",
        TopDelta,
        "perturb",
        lambda pair: (pair[0], pair[1].float()),
        "the mask of `perturb` must be a tensor (16, 16) of torch.bool, found Tensor (16, 16) of torch.float32",
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
        "`forward` must be a floating point tensor of shape (), found Tensor (1,) of torch.float32",
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
        (
            "dataset",
            FashionMNIST,
            {"num_classes": 3, "class_names": ["a", "b", "c"]},
            "has labels outside [0, 3), found 0 to 9",
        ),
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
        (batch(images=lambda images: images.half()), "found Tensor (1, 3, 32, 32) of torch.float16"),
        (batch(images=lambda images: images * 255), "images of `load` must lie in [-1, 1]"),
        (
            batch(images=lambda images: images[..., :28, :28]),
            "of torch.float32, found Tensor (1, 3, 28, 28)",
        ),
        (batch(images=not_finite), "images of `load` must lie in [-1, 1]"),
        (batch(images=lambda images: images[:, :1]), "must be a tensor (1, 3, 32, 32) of torch.float32"),
        (batch(labels=lambda labels: labels.int()), "labels of `load` must be a tensor (1,) of torch.int64"),
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


PLUGIN = """
from torch.utils.data import get_worker_info

from robustok_core import hookimpl
from robustok_data.arrays import ArrayImages
from robustok_data.fashion_mnist import FashionMNIST
from robustok_losses.reconstruction import PixelReconstruction

class Wrong(PixelReconstruction):
    def forward(self, step):
        return {}["nothing"]

class WrongImages(ArrayImages):
    def load(self, indices, draws=None):
        return super().load(indices, draws) if get_worker_info() is None else {}["nothing"]

class WrongData(FashionMNIST):
    def __init__(self, config):
        super().__init__(config)
        self.train.__class__ = WrongImages

@hookimpl
def robustok_register(register):
    register("loss", "wrong", Wrong)
    register("dataset", "wrong", WrongData)
"""


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("loss", "loss 'wrong', method forward ("),
        ("dataset", "in a process that loads data"),
    ],
)
def test_the_command_names_the_plugin_before_the_traceback(tmp_path, kind, wanted) -> None:
    (tmp_path / "their_plugin").mkdir()
    (tmp_path / "their_plugin/__init__.py").write_text(PLUGIN)
    about = tmp_path / "their_own-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-own\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[robustok]\ntheirs = their_plugin\n")
    project = with_component(kind, tmp_path / "runs")
    project.stage("train_tokenizer")["workers"] = 1 if kind == "dataset" else 0
    (tmp_path / "r.toml").write_text(tomli_w.dumps(project.table))
    command = [sys.executable, "-m", "robustok_core", "run", "r.toml"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    first, _, rest = done.stderr.partition("\n")
    assert first.startswith("error: this error happened in code of the plugin their-own")
    assert wanted in first
    assert "Traceback" in rest
    assert "KeyError" in rest
    assert done.returncode == 1
