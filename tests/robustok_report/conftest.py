"""A run with everything that a report can show, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from project import COLOURS, NUM_SAMPLES, POST_TRAINING, STAGES, TO_SAMPLES, Project
from robustok_core.runs.devices import device_called
from robustok_toolkit.reported_run import ReportedRun

MEASURED = {
    "use": "evaluate_tokenizer",
    "metrics": {
        "psnr": {"use": "psnr"},
        "rfd": COLOURS,
        "pfd": {"use": "pfid", "features": COLOURS["features"], "alphas": [0.5, 1.0], "deltas": [2, 4]},
    },
}
GENERATOR = {"use": "evaluate_generator", "metrics": {"gfd": COLOURS}}
SAMPLED = {"use": "sample", "num_samples": NUM_SAMPLES, "sampling": {"steps": 2}}
GUIDED = [
    {**SAMPLED, "name": "guided", "guidance": {"scale": 2.0}},
    {**GENERATOR, "name": "evaluate_guided"},
]
COMPARED = {"use": "compare_decoders", **STAGES["compare_decoders"], "pair_metrics": {"psnr": {"use": "psnr"}}}
#: All stages that a report has something to say about.
EVERYTHING = (TO_SAMPLES[0], MEASURED, *TO_SAMPLES[1:], GENERATOR, *GUIDED, "latent_mmd", *POST_TRAINING[:-1], COMPARED)


@pytest.fixture(scope="session")
def complete(tmp_path_factory) -> Project:
    """A run of everything, with its report; not to be changed."""
    return Project(tmp_path_factory.mktemp("complete"), EVERYTHING, run={"report": True}).run()


@pytest.fixture(scope="session")
def page(complete) -> str:
    """The text of its report."""
    return (complete.folder / "report.html").read_text()


@pytest.fixture
def copied(complete, tmp_path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(complete.folder, tmp_path / complete.folder.name))


@pytest.fixture
def as_reported(complete, registry) -> ReportedRun:
    """The run as its sections see it, to be changed."""
    return ReportedRun(complete.folder, registry, device_called("cpu"))
