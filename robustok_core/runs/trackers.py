"""Experiment trackers beside metrics.jsonl: which there are, how they start, and pictures for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image

from robustok_core.errors import RobustokError
from robustok_core.recipe.recipe import ResolvedRecipe

#: Where trackio keeps what is logged, in the run's folder, unless TRACKIO_DIR says otherwise.
TRACKIO_FOLDER = "trackio"


def check_trackers(recipe: ResolvedRecipe) -> None:
    """Raises RobustokError if a tracker of a recipe is not installed; one message names all of them."""
    if missing := [tracker for tracker in recipe.run.trackers if find_spec(tracker) is None]:
        verb = "is" if len(missing) == 1 else "are"
        where = recipe.source.location(("run", "trackers"))
        hint = f"pip install 'robustok[{','.join(missing)}]'"
        raise RobustokError(f"run.trackers: {', '.join(missing)} {verb} not installed", where=where, hint=hint)


def start_trackers(accelerator: Accelerator, recipe: ResolvedRecipe, folder: Path) -> None:
    """Starts the trackers of a recipe; they write into the run's folder, which must be open by now."""
    run = recipe.run
    if not run.trackers:
        return
    options: dict[str, Any] = {}
    if "trackio" in run.trackers:
        # trackio reads the variable when it is imported, and would otherwise write into the user's home folder
        os.environ.setdefault("TRACKIO_DIR", str((folder / TRACKIO_FOLDER).resolve()))
        options["trackio"] = {
            "name": run.name,
            "embed": False,
            "resume": "allow",
            "auto_log_cpu": False,
            "auto_log_gpu": False,
        }
    accelerator.init_trackers("robustok", config={"run": run.name, "seed": run.seed}, init_kwargs=options)


def track_pictures(accelerator: Accelerator, stage: str, artifacts: Sequence[Path]) -> None:
    """Gives the PNG files of a stage's artifacts to every tracker."""
    for file in (file for folder in artifacts for file in sorted(folder.glob("*.png"))):
        with Image.open(file) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        for tracker in accelerator.trackers:
            _show(tracker, f"{stage}/{file.stem}", pixels)


def _show(tracker: Any, name: str, pixels: NDArray[np.uint8]) -> None:
    if tracker.name == "trackio":  # accelerate has no pictures for it
        import trackio

        tracker.log({name: trackio.Image(pixels)})
    elif tracker.name == "tensorboard":
        tracker.log_images({name: pixels[None]}, step=0, dataformats="NHWC")
    else:
        tracker.log_images({name: [pixels]})
