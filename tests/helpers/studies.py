"""A tiny study: two arms of a recipe that trains and measures a tokenizer in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from left_runs import MEASURED as RECIPE
from left_runs import leave_run
from robustok_core import Recipe, Result
from robustok_study.planner import Job

MEASURED = {"use": "fashion_classifier"}
EVALUATION = {
    "use": "evaluate_tokenizer",
    "pictures": 0,
    "metrics": {
        "psnr": {"use": "psnr"},
        "rfd": {"use": "frechet", "features": MEASURED},
        "pfd": {"use": "pfid", "features": MEASURED, "alphas": [0.5]},
    },
}


def study_table(**changes: Any) -> dict[str, Any]:
    """Two arms that share their tokenizer and measure it with and without a picture."""
    table = {
        "recipe": "r.toml",
        "seeds": [0, 1, 2],
        "metrics": {
            "PSNR": "evaluate_tokenizer/psnr",
            "pFD - rFD": "evaluate_tokenizer/pfd_fashion_classifier - evaluate_tokenizer/rfd_fashion_classifier",
        },
        "arm": [{"name": "one"}, {"name": "two", "set": {"stage": {"evaluate_tokenizer": {"pictures": 2}}}}],
        "claim": [
            {"text": "it falls", "metric": "PSNR", "arm": "two", "base": "one", "direction": "lower"},
            {"text": "it is high", "metric": "PSNR", "arm": "one", "direction": "higher", "than": 1.0},
        ],
    }
    return {key: value for key, value in (table | changes).items() if value is not None}


def finished_job(
    folder: Path,
    arm: str,
    seed: int,
    results: Mapping[str, Result],
    *,
    recipe: Mapping[str, Any] = RECIPE,
    made_with: Sequence[Mapping[str, Any]] = (),
) -> Job:
    """A job of a study as it is when its run has left results; its stage is `eval` of `left_runs.MEASURED`."""
    name = f"{arm}-seed{seed}"
    stage = {"state": "done", "seconds": 1.0, "makes": [], "made_with": list(made_with)}
    record = {"stages": {"eval-f": stage}, "current": {"eval": "f"}}
    leave_run(folder / name, results, seed=seed, recipe=recipe, record=record)
    return Job(
        name=name,
        arm=arm,
        seed=seed,
        folder=folder / name,
        recipe=Recipe.from_table(dict(recipe)),
        stages={"eval": "f"},
        state="done",
        finished={"eval": folder / name},
        needs=[],
    )
