"""Every stage runs on images in the order of their classes, as folders hold them; the embedded data are shuffled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from project import COLOURS, CONTINUOUS, FLOW, POST_TRAINING, TO_SAMPLES, Project, Table
from robustok_core import Registry

FEATURES = COLOURS["features"]
DISCRETE: list[Table] = [
    {
        "use": "evaluate_tokenizer",
        "limit": 15,
        "metrics": {"rfd": COLOURS, "pfd": {"use": "pfid", "features": FEATURES}},
    },
    {"use": "evaluate_generator", "metrics": {"gfd": COLOURS}},
    {"use": "latent_mmd"},
    {"use": "generation_gap", "metric": COLOURS},
    {"use": "calibrate", "limit": 20},
]
OF_VECTORS: list[Table] = [
    {"use": "evaluate_tokenizer", "metrics": {"pfd": {"use": "noise_pfd", "features": FEATURES}}},
    {"use": "calibrate", "limit": 20, "sigmas": [0.5], "sampling": {"steps": 2}},
]


@pytest.fixture
def sorted_images(tmp_path: Path) -> Table:
    random = np.random.default_rng(0)
    for number in range(120):
        folder = tmp_path / "images" / "abc"[number // 40]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return {"use": "image_folder", "path": str(tmp_path / "images"), "image_size": 32, "validation_share": 0.4}


def test_stages_of_codes(sorted_images: Table, tmp_path: Path, registry: Registry) -> None:
    stages: list[Any] = [*TO_SAMPLES, *DISCRETE, *POST_TRAINING]
    run = Project(tmp_path / "out", stages, data=sorted_images).run()
    labels = run.dataset().validation.labels
    assert labels.tolist() == sorted(labels.tolist())
    ran = {name.split("/")[0] for name in run.results}
    assert ran == set(registry.names("stage")) - {"take_tokenizer"}, "all but one without results"


def test_stages_of_vectors(sorted_images: Table, tmp_path: Path) -> None:
    stages: list[Any] = [*TO_SAMPLES, *OF_VECTORS, *POST_TRAINING]
    Project(tmp_path / "out", stages, data=sorted_images, generator=FLOW, **CONTINUOUS).run()
