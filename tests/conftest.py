"""Settings of all tests, and what they share: the registry, and one trained project."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from project import TO_SAMPLES, Project
from robustok_core import Registry, load_registry

torch.set_num_threads(int(os.environ.get("ROBUSTOK_TEST_THREADS", "1")))
# The same examples in every run, however slow the machine.
settings.register_profile(
    "robustok", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("robustok")


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All installed plugins."""
    return load_registry()


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Project:
    """A project that was run from images to samples; not to be changed."""
    return Project(tmp_path_factory.mktemp("trained"), TO_SAMPLES).run()
