"""Manifests: the size and hash of every file of an artifact or checkpoint, so that damage is found before it is used.

A manifest is a JSON file beside the files that it lists, written last. Folders of earlier versions have none; they are
taken as they are. Where run.json says that a folder had one (`intact.py`, `StageContext.manifests`), a missing manifest
is damage.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.files import move, new_folder, write_json
from robustok_core.runs.fingerprints import fingerprint_of, sha256_of
from robustok_core.runs.records import read_record
from robustok_core.runs.run_record import FileRecord

MANIFEST = "manifest.json"
#: The name of a damaged file or folder that was set aside begins with this.
DAMAGED = "damaged-"


@frozen(kw_only=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        files: by their path relative to the manifest's folder.
        checksum: of `files`, so that a damaged manifest is not taken for damaged files.
    """

    files: dict[str, FileRecord]
    checksum: str


@frozen
class Damage:
    """A file that is not as it was written, and what is wrong with it."""

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@contextmanager
def recorded_folder(target: Path) -> Iterator[Path]:
    """As `new_folder`, and adds a manifest of all files once the block ends."""
    with new_folder(target) as aside:
        yield aside
        write_manifest(aside / MANIFEST, (file for file in sorted(aside.rglob("*")) if file.is_file()))


def write_manifest(manifest: Path, files: Iterable[Path]) -> None:
    """Writes a manifest of these files, which lie in its folder or below."""
    records = {file.relative_to(manifest.parent).as_posix(): file_record(file) for file in files if file != manifest}
    write_json(manifest, {"files": records, "checksum": fingerprint_of(records)})


def file_record(file: Path) -> dict[str, Any]:
    """A `FileRecord` of a file, as JSON files hold it."""
    return {"size": file.stat().st_size, "sha256": sha256_of(file)}


def damage_of(manifest: Path, *, recorded: bool = False) -> Damage | None:
    """The first file that is not as a manifest says; None if all are.

    Without a manifest, the files are taken as they are, unless it is recorded that there was one.
    """
    if not os.path.lexists(manifest):
        return Damage(manifest, "it is missing") if recorded else None
    try:
        record = read_record(Manifest, manifest)
    except RobustokError as error:
        return Damage(manifest, error.what)
    if record.checksum != fingerprint_of(attrs.asdict(record)["files"]):
        return Damage(manifest, "its content has changed since it was written")
    for name, expected in record.files.items():
        file = manifest.parent / name
        if what := difference(file, expected):
            return Damage(file, what)
    return None


def folder_damage(folder: Path, *, recorded: bool = False) -> Damage | None:
    """As `damage_of`, for a folder that `recorded_folder` made."""
    if not folder.is_dir():
        return Damage(folder, "it is not a folder" if os.path.lexists(folder) else "it is gone")
    return damage_of(folder / MANIFEST, recorded=recorded)


def set_aside(path: Path, folder: Path | None = None) -> Path:
    """Renames what is damaged to damaged-NAME, in `folder` or where it is; returns the new path."""
    target = next_free((folder or path.parent) / f"{DAMAGED}{path.name}")
    move(path, target)
    return target


def next_free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def difference(file: Path, expected: FileRecord) -> str | None:
    """What differs from the record of a file; None if nothing does.

    Raises:
        RunError: if it may not be read.
    """
    if not file.is_file():
        return "it is not a file" if os.path.lexists(file) else "it is missing"
    try:
        size = file.stat().st_size
        if size != expected.size:
            return f"it has {size:,} bytes instead of {expected.size:,}"
        if sha256_of(file) != expected.sha256:
            return "its content has changed since it was written"
    except PermissionError as error:  # it may be as it was, and need not be made again
        hint = "is it yours to read?"
        raise RunError(f"cannot be read: {error.strerror}", where=str(file), hint=hint) from error
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return None
