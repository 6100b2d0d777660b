"""Recipes that compare the samples of another run with real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from project import BATCH_SIZE, COLOURS, Project

FEATURES = {"use": "fashion_classifier"}
METRICS = {
    "gfd": COLOURS,
    "precision_recall": {"use": "precision_recall", "features": FEATURES},
}
EVALUATION = {"use": "evaluate_generator", "metrics": METRICS, "batch_size": BATCH_SIZE}

STAGE = "evaluate_generator"
DISTANCE = f"{STAGE}/gfd_fashion_classifier"


def evaluating(trained: Project, out: Path, **options: Any) -> Project:
    """A project that evaluates the samples of another."""
    return trained.later(out, [EVALUATION | options], load=("samples",))
