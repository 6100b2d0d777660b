"""Every registered tokenizer with every generator of an equal space, from images to post-trained decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from every_model import GENERATORS, PAIRS, TOKENIZERS, generator_table, is_discrete, save_autoencoder, tokenizer_table
from project import BATCH_SIZE, COLOURS, Project
from robustok_core import load_registry

FEW: dict[str, Any] = {"train_limit": BATCH_SIZE + 4, "validation_limit": 10}
CELL: dict[str, Any] = {"alphas": [0.5], "features": COLOURS["features"]}
#: The measure of robustness in a space with codes and in one without.
ROBUSTNESS = {True: {"use": "pfid", "deltas": [2], **CELL}, False: {"use": "noise_pfd", "levels": [0.5], **CELL}}
PERTURBATION = {True: {"use": "top_delta", "beta": 0.25, "delta": 2}, False: {"use": "gaussian", "beta": 0.25}}
GENERATING = ("train_generator", "sample", "evaluate_generator", "make_pairs", "post_train")


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory):
    """A tokenizer's project, trained for a step, evaluated, and with the latents of its training images."""
    folder, made = tmp_path_factory.mktemp("tokenizers"), {}
    save_autoencoder(folder / "autoencoder")

    def project(name: str) -> Project:
        if name not in made:
            discrete = is_discrete(name)
            made[name] = Project(
                folder / name,
                ["train_tokenizer", "evaluate_tokenizer", "tokenize"],
                data=FEW,
                tokenizer=tokenizer_table(name, folder / "autoencoder"),
                perturbation=PERTURBATION[discrete],
                evaluate_tokenizer={"metrics": {"robustness": ROBUSTNESS[discrete]}, "pictures": 2},
                tokenize={"views": "center"},
            ).run()
        return made[name]

    return project


def test_every_registered_tokenizer_and_generator_is_here():
    registry = load_registry()
    assert set(TOKENIZERS) == set(registry.names("tokenizer"))
    assert set(GENERATORS) == set(registry.names("generator"))
    spaces = {name: is_discrete(name) for name in (*TOKENIZERS, *GENERATORS)}
    assert set(PAIRS) == {(t, g) for t in TOKENIZERS for g in GENERATORS if spaces[t] == spaces[g]}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_tokenizer_is_trained_with_its_perturbation_and_its_robustness_measured(tokenized, name):
    project = tokenized(name)
    (measured,) = (key for key in project.results if key.startswith("evaluate_tokenizer/"))
    assert measured.startswith("evaluate_tokenizer/pfd_" if is_discrete(name) else "evaluate_tokenizer/noise_pfd_")
    assert project.results[measured].value > 0
    assert project.results[measured].num_images == FEW["validation_limit"]


@pytest.mark.parametrize(("tokenizer", "generator"), PAIRS)
def test_every_pair_goes_from_latents_to_post_trained_decoders(tokenized, tmp_path: Path, tokenizer, generator):
    base = tokenized(tokenizer)
    table = generator_table(generator, base.component().space)
    has_steps = "steps" in attrs.fields_dict(load_registry().find("generator", generator).Sampling)
    steps = {"sampling": {"steps": 2} if has_steps else {}}
    project = base.later(
        tmp_path,
        GENERATING,
        load=["tokenizer", "latents"],
        generator=table,
        post_trainer={"use": "decoder", **steps},
        train_generator={"epochs": 1},
        sample={"num_samples": 10, **steps},
        evaluate_generator={"metrics": {"gfd": COLOURS}, "reference": "validation"},
        make_pairs={"num_pairs": BATCH_SIZE},
        post_train={"epochs": 1},
    ).run()
    assert project.results["post_train/decoders"].value == 2
    assert project.results["evaluate_generator/gfd_fashion_classifier"].num_images == 10
