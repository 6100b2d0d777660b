"""A project that was run from images to a post-trained decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from project import ADVERSARIAL, POST_TRAINING, TO_SAMPLES, Project, changed


@pytest.fixture(scope="session")
def whole() -> Callable[..., Project]:
    """Makes a project from images to a post-trained decoder, with a discriminator in both trainings."""

    def make(out: Path, **changes: Any) -> Project:
        project = Project(out, (*TO_SAMPLES, *POST_TRAINING))
        for stage in ("train_tokenizer", "post_train"):
            project.stage(stage)["losses"] = ADVERSARIAL
        project.table = changed(project.table, changes)
        return project

    return make


@pytest.fixture(scope="session")
def post_trained(whole, tmp_path_factory) -> Project:
    """Such a project that was run; not to be changed."""
    return whole(tmp_path_factory.mktemp("post_trained")).run()


@pytest.fixture
def one_stage(post_trained, tmp_path) -> Callable[..., Project]:
    """Makes a project of one stage of `post_trained`, which loads artifacts from it and main training's tokenizer."""

    def make(stage: str, *load: str, **options: Any) -> Project:
        project = post_trained.later(tmp_path, [stage], load=("tokenizer", *load), **{stage: options})
        project.table["load"]["tokenizer"] = str(post_trained.artifact("tokenizer", stage="train_tokenizer"))
        return project

    return make
