"""Which stages of a recipe must run: those that are not finished, and those whose artifacts are damaged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from robustok_core.recipe.recipe import NamedStage
from robustok_core.runs.folder import RunFolder
from robustok_core.runs.history import HISTORY
from robustok_core.runs.intact import artifact_damage
from robustok_core.runs.manifest import Damage, set_aside


def due_stages(
    folder: RunFolder, stages: Sequence[NamedStage], fingerprints: Mapping[str, str]
) -> dict[str, Damage | None]:
    """The stages that must run, in order; of those that were finished before, why they must run again.

    Every file of a finished stage is compared with its hash, so that "unchanged" is true and later stages read nothing
    that is damaged.

    Args:
        folder: the run. stages: in order. fingerprints: of the stages by name.
    """
    due: dict[str, Damage | None] = {}
    for stage in stages:
        if folder.stage(stage.name, fingerprints[stage.name])["state"] != "done":
            due[stage.name] = None
        elif damage := stage_damage(folder, stage, fingerprints[stage.name]):
            due[stage.name] = damage
    return due


def set_damaged_aside(
    folder: RunFolder,
    stages: Sequence[NamedStage],
    due: Mapping[str, Damage | None],
    fingerprints: Mapping[str, str],
) -> list[str]:
    """Moves what finished stages made, and their results, to history/ where they are damaged; says so, in lines."""
    said = folder.set_damaged_results_aside()
    for stage in stages:
        if damage := due.get(stage.name):
            said.append(f"{damage}; stage {stage.name} runs again")
            for name in stage.spec.factory.makes:
                if os.path.lexists(artifact := folder.artifact(name, fingerprints[stage.name])):
                    kept = set_aside(artifact, folder.path / HISTORY)
                    said.append(f"  what it made before is now {kept}")
    return said


def stage_damage(folder: RunFolder, stage: NamedStage, fingerprint: str) -> Damage | None:
    """The first damage of what a finished stage made; every file is compared with its hash."""
    found = (artifact_damage(folder.artifact(name, fingerprint)) for name in stage.spec.factory.makes)
    return next(filter(None, found), None)
