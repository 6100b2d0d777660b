"""The artifacts from [load] in run.json: recorded so that they are found again where folders were moved."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from robustok_core.errors import RobustokError
from robustok_core.runs.fingerprints import content_fingerprint
from robustok_core.runs.intact import check_artifact
from robustok_core.runs.records import record_of
from robustok_core.runs.run_record import RUN_FILE, InputRecord


def input_entry(run: Path, artifact: Path) -> str | dict[str, str]:
    """What run.json records of an artifact: its path in the run's folder, or where it is outside, and its content."""
    folder, artifact = run.resolve(), artifact.resolve()
    if artifact.is_relative_to(folder):
        return artifact.relative_to(folder).as_posix()
    relative = Path(os.path.relpath(artifact, folder)).as_posix()
    record = InputRecord(path=str(artifact), relative=relative, content=content_fingerprint(artifact))
    return attrs.asdict(record)


def may_be_input(run: Path, record: Mapping[str, Any], artifact: Path) -> bool:
    """Whether this folder may be an artifact that the run loaded."""
    artifact = artifact.resolve()
    return any(
        artifact == place.resolve() for entry in record.get("inputs", {}).values() for place in _places(run, entry)
    )


def find_input(run: Path, record: Mapping[str, Any], name: str) -> Path:
    """The folder of an artifact that the run loaded: where it was, or where it lies since folders were moved.

    Raises:
        RobustokError: if it is not found, or is not the one that was loaded.
    """
    entry = record["inputs"][name]
    content = None if isinstance(entry, str) else _record(run, entry).content
    found = [place for place in _places(run, entry) if place.is_dir()]
    for place in found:
        if content is None or content_fingerprint(place) == content:
            return place
    if found:
        check_artifact(found[0])
        what = f"the {name} that this run loaded has changed since then: {found[0]}"
        raise RobustokError(what, where=str(run), hint="run the recipe again, which takes what is there now")
    where = entry if isinstance(entry, str) else entry["path"]
    hint = f"move it there or beside this run, or name another {name}"
    raise RobustokError(f"the {name} that this run loaded is no longer there: {where}", where=str(run), hint=hint)


def _record(run: Path, entry: Any) -> InputRecord:
    return record_of(InputRecord, entry, run / RUN_FILE)


def _places(run: Path, entry: Any) -> Iterator[Path]:
    """Where an input may lie: in the run's folder, as seen from it, where it was, or in a run beside this one."""
    if isinstance(entry, str):  # earlier versions recorded all paths in full
        path = Path(entry)
        yield run / path  # an absolute path stays as it is
        yield run / "artifacts" / path.name
    else:
        record = _record(run, entry)
        path = Path(record.path)
        yield (run / record.relative).resolve()
        yield path
    if len(path.parents) > 2:  # .../RUN/artifacts/NAME-FINGERPRINT
        yield run.resolve().parent / path.parents[1].name / "artifacts" / path.name
    yield from sorted(run.resolve().parent.glob(f"*/artifacts/{glob.escape(path.name)}"))
