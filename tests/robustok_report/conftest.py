"""A run with everything that a report can show, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import COLOURS, NUM_SAMPLES, POST_TRAINING, TO_SAMPLES, Project

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
#: All stages that a report has something to say about.
EVERYTHING = (TO_SAMPLES[0], MEASURED, *TO_SAMPLES[1:], GENERATOR, *GUIDED, "latent_mmd", *POST_TRAINING)


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
    import shutil

    return Path(shutil.copytree(complete.folder, tmp_path / complete.folder.name))
