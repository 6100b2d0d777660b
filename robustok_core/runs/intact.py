"""Whether an artifact is as it was written; unlike `manifest.py`, this asks the run whether it must have a manifest."""

from __future__ import annotations

from pathlib import Path

from robustok_core.errors import RunError
from robustok_core.runs.manifest import Damage, folder_damage
from robustok_core.runs.run_record import maker_of, record_around

#: What to do about a damaged artifact.
REMAKE = "run the recipe that made it again: its stage then makes it anew"


def artifact_damage(folder: Path) -> Damage | None:
    """The first file of an artifact that is not as it was written, or its manifest, where that is missing.

    Artifacts of earlier versions have no manifest and are taken as they are, and so are those outside of a run.
    """
    return folder_damage(folder, recorded=_has_manifest(folder))


def check_artifact(folder: Path) -> None:
    """Compares every file of an artifact with its manifest.

    Raises:
        RunError: naming the first file that is damaged.
    """
    damage = artifact_damage(folder)
    if damage is not None:
        raise RunError(f"damaged: {damage.what}", where=str(damage.file), hint=REMAKE)


def _has_manifest(artifact: Path) -> bool:
    """Whether the run.json above RUN/artifacts/NAME-FINGERPRINT says that a version with manifests made it."""
    record = record_around(artifact)
    maker = maker_of(artifact)
    made = maker is not None and maker["state"] == "done" and maker.get("without_code") is not None
    return made or artifact.resolve().name in record.get("imported", [])
