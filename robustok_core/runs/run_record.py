"""run.json, and the copy beside it that stands in for it where it is damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from robustok_core.errors import RunError
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.records import record_of

RUN_FILE, COPY = "run.json", ".run.json.copy"
_CHECKSUM = "checksum"


@frozen(kw_only=True)
class MadeFrom:
    """What shapes a stage's result besides code.

    Attributes:
        settings: a hash of the stage's options, the tables that it uses, the seed and the precision.
        data: the fingerprints of the training and the validation split; empty if the stage reads no images.
        inputs: the fingerprints of the artifacts that it reads, by name.
        files: the content of the files that options name, by path; None if an earlier version ran it.
    """

    settings: str
    data: list[str] = field(factory=list)
    inputs: dict[str, str] = field(factory=dict)
    files: dict[str, str] | None = None


@define(kw_only=True)
class StageRecord:
    """A stage that was begun.

    Attributes:
        state: "new", "running", "done", "interrupted" or "failed". seconds: of work so far.
        started, finished: the time of the last attempt.
        peak_memory_gib: main memory, the most of its process up to the end of the last attempt, stages before it, too.
        makes: its artifacts. results: by name, as `Result.table` gives them.
        made_with: the versions, machine and plugins of each attempt.
        without_code: its fingerprint but for the code of plugins; equal for two stages that differ in that only. A
            version that records it gives each artifact a manifest.
        manifests: whether everything in its checkpoints was written by such a version.
        made_from: a `MadeFrom`; None if an earlier version ran it.
        taken_from: the folder of the run that made it, if that was another one.
    """

    state: str
    seconds: float = 0.0
    started: str | None = None
    finished: str | None = None
    peak_memory_gib: float | None = None
    makes: list[str] = field(factory=list)
    results: dict[str, Any] = field(factory=dict)
    made_with: list[dict[str, Any]] = field(factory=list)
    without_code: str | None = None
    manifests: bool = False
    made_from: MadeFrom | None = None
    taken_from: str | None = None


@frozen(kw_only=True)
class FileRecord:
    """A file's size in bytes, and its hash."""

    size: int
    sha256: str


@frozen(kw_only=True)
class InputRecord:
    """An artifact from [load] that does not lie in the run's folder.

    Attributes:
        path: where it was. relative: the same, as seen from the run's folder. content: its `content_fingerprint`.
    """

    path: str
    relative: str
    content: str


@define(kw_only=True)
class PastRecord:
    """A recipe that another one replaced in this folder.

    Attributes:
        number: of its files in history/. replaced: when. current, inputs: as in `RunRecord`.
    """

    number: int
    replaced: str
    current: dict[str, str] = field(factory=dict)
    inputs: dict[str, Any] = field(factory=dict)


@define(kw_only=True)
class RunRecord:
    """The content of run.json.

    Attributes:
        stages: by NAME-FINGERPRINT. current: the fingerprint of each stage of the recipe in recipe.toml, by name.
        inputs: the artifacts from [load] by name: a path, relative to the run's folder where it is inside, or an
            `InputRecord`. recipe, results: hashes of recipe.toml and results.json as the run wrote them.
        history: the recipes that were replaced, oldest first.
        kept: a `FileRecord` of each of their files in history/, by name; earlier versions recorded none.
        log: a `FileRecord` of metrics.jsonl as it was when a stage ended last; later lines are not covered.
        imported: the artifacts from published checkpoints that have a manifest, as NAME-FINGERPRINT.
    """

    stages: dict[str, StageRecord]
    current: dict[str, str] = field(factory=dict)
    inputs: dict[str, Any] = field(factory=dict)
    recipe: str | None = None
    results: str | None = None
    history: list[PastRecord] = field(factory=list)
    kept: dict[str, FileRecord] = field(factory=dict)
    log: FileRecord | None = None
    imported: list[str] = field(factory=list)


def write_run(folder: Path, record: dict[str, Any]) -> None:
    """Writes run.json and its copy."""
    content = {name: value for name, value in record.items() if name != _CHECKSUM}
    content[_CHECKSUM] = fingerprint_of(content)
    for name in (RUN_FILE, COPY):
        write_json(folder / name, content)


def read_run(folder: Path) -> dict[str, Any]:
    """The content of run.json, which fits `RunRecord`; run.json of an earlier version has no checksum.

    Raises:
        RunError: if it is missing or damaged.
    """
    try:
        return _read(folder / RUN_FILE)
    except RunError as error:
        hint = f"`robustok run {folder}` repairs it from its copy" if _copied(folder) else _without_a_copy(folder)
        raise RunError(error.what, where=error.where, hint=hint) from error


def read_copy(folder: Path) -> dict[str, Any] | None:
    """The content of the copy of run.json; None if it is missing or damaged."""
    try:
        return _read(folder / COPY)
    except RunError:
        return None


def is_run(folder: Path) -> bool:
    """Whether a folder has a run.json, or what is left of one."""
    return any(os.path.lexists(folder / name) for name in (RUN_FILE, COPY))


def record_around(artifact: Path) -> dict[str, Any]:
    """The content of run.json, or of its copy, above RUN/artifacts/NAME-FINGERPRINT; empty where there is none."""
    artifact = artifact.resolve()
    run = artifact.parent.parent
    if artifact.parent.name != "artifacts" or not is_run(run):
        return {"stages": {}}
    try:
        return read_run(run)
    except RunError:
        return read_copy(run) or {"stages": {}}


def maker_of(artifact: Path) -> dict[str, Any] | None:
    """The entry in run.json of the stage that made an artifact of a run; None if that is not known."""
    name, _, fingerprint = artifact.resolve().name.rpartition("-")
    entries: dict[str, dict[str, Any]] = record_around(artifact)["stages"]
    makers = (
        entry
        for key, entry in entries.items()
        if key.rpartition("-")[2] == fingerprint and name in entry.get("makes", [])
    )
    return next(makers, None)


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file)
    record_of(RunRecord, content, file)
    checksum = content.pop(_CHECKSUM, None)
    if checksum is not None and checksum != fingerprint_of(content):
        raise RunError("its content has changed since it was written", where=str(file))
    return content


def _copied(folder: Path) -> bool:
    return read_copy(folder) is not None


def _without_a_copy(folder: Path) -> str:
    artifacts = folder / "artifacts"
    return f"restore it from a backup, or run again with --fresh; what the run made can still be used: {artifacts}"
