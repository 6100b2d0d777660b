"""Runs of each kind, opened: with a generator, with post-training, with a continuous space."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from project import CONTINUOUS, FLOW, POST_TRAINING, Project
from robustok_explorer.opened_run import OpenedRun, open_run


def opened(project: Project) -> OpenedRun:
    return open_run(project.folder, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def post_trained(trained, tmp_path_factory) -> Project:
    """The trained project, post-trained in a run of its own; not to be changed."""
    out = tmp_path_factory.mktemp("post_trained")
    return trained.later(out, POST_TRAINING, load=("tokenizer", "generator")).run()


@pytest.fixture(scope="session")
def guided(trained, tmp_path_factory) -> Project:
    """The trained project, post-trained and sampled with guidance that grows; not to be changed.

    It is strong, because the generator has learned little.
    """
    guidance = {"guidance": {"scale": 1000.0, "schedule": "cosine", "power": 1.5}}
    out = tmp_path_factory.mktemp("guided")
    return trained.later(
        out, POST_TRAINING, load=("tokenizer", "generator"), post_trainer=guidance, compare_decoders=guidance
    ).run()


@pytest.fixture(scope="session")
def continuous(tmp_path_factory) -> Project:
    """A continuous tokenizer and a flow transformer whose recipe takes two steps; not to be changed."""
    stages = ("train_tokenizer", "tokenize", "train_generator", "sample")
    table = {**CONTINUOUS, "perturbation": {"use": "gaussian", "tau": 0.5}}
    out = tmp_path_factory.mktemp("continuous")
    return Project(out, stages, generator=FLOW, train_generator={"epochs": 1}, **table).run()


@pytest.fixture(params=["trained", "post_trained", "continuous"])
def run(request) -> OpenedRun:
    """A run of each kind."""
    return opened(request.getfixturevalue(request.param))


@pytest.fixture
def open_project() -> Callable[[Project], OpenedRun]:
    """Opens a project's run."""
    return opened
