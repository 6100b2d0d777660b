"""Folders as finished runs leave them, with results that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from robustok_core import Result
from robustok_core.runs.results import tables_of
from robustok_core.runs.run_record import write_run

NETWORK: dict[str, Any] = {"use": "fashion_classifier"}
#: A recipe with a stage "eval" that measures a distance, and one before it that samples.
MEASURED: dict[str, Any] = {
    "data": {"use": "fashion_mnist", "image_size": 32},
    "perturbation": {"use": "none"},
    "stage": [
        {
            "name": "sample",
            "use": "sample",
            "num_samples": 1000,
            "classes": [],
            "guidance": {"scale": 1.0},
            "sampling": {"steps": 2},
        },
        {
            "name": "eval",
            "use": "evaluate_generator",
            "reference": "validation",
            "metrics": {"gfd": {"use": "frechet", "features": NETWORK}},
        },
    ],
}


def leave_run(
    folder: str | Path,
    results: Mapping[str, Result],
    *,
    seed: int | None = 0,
    recipe: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """A run's folder with these results.

    Args:
        recipe: without its [run]; default: `MEASURED`. record: further entries of run.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    seeded = {} if seed is None else {"seed": seed}
    write_run(folder, {"stages": {}, "current": {}, **seeded, **(record or {})})
    table = {"run": {"name": folder.name, **seeded}, **(MEASURED if recipe is None else recipe)}
    (folder / "recipe.toml").write_text(tomli_w.dumps(table))
    (folder / "results.json").write_text(json.dumps(tables_of(dict(results))))
    return folder


def distance(
    value: float, num_images: int | None = 1000, num_reference: int | None = None, /, **details: Any
) -> Result:
    """A result that is the better the lower it is."""
    return Result(value, higher_is_better=False, num_images=num_images, num_reference=num_reference, details=details)
