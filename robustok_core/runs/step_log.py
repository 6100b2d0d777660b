"""metrics.jsonl: one line per logged step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RunError
from robustok_core.runs.files import check_regular, new_file, writing
from robustok_core.runs.fingerprints import sha256_of
from robustok_core.runs.manifest import file_record

LOG_FILE = "metrics.jsonl"


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Adds one JSON line to a file."""
    with writing(file), file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(values) + "\n")


def drop_lines(file: Path, fingerprint: str, after_step: int) -> None:
    """Drops a stage's lines after a step, which an interrupted run logged and will log again.

    Lines of the same stage with another configuration have another fingerprint and stay. A last line that a kill cut
    off is dropped; a line that was damaged otherwise stays as it is.

    Raises:
        RunError: if the file cannot be read or written.
    """
    if not os.path.lexists(file):
        return
    kept = [line for line in _lines(file) if not _is_after(line, fingerprint, after_step)]
    with new_file(file) as unfinished:
        unfinished.write_bytes(b"".join(line + b"\n" for line in kept))


def take_lines(source: Path, target: Path, fingerprint: str) -> None:
    """Replaces a stage's lines in a log by those in the log of another run, which may be running.

    Raises:
        RunError: if a file cannot be read or written.
    """
    taken = [line for line in _lines(source) if _is_of(line, fingerprint)]
    kept = [line for line in _lines(target) if not _is_of(line, fingerprint)]
    if taken or kept:
        with new_file(target) as unfinished:
            unfinished.write_bytes(b"".join(line + b"\n" for line in [*kept, *taken]))


def _lines(file: Path) -> list[bytes]:
    """The lines of a log, without a last one that a kill cut off; none if there is no log."""
    if not os.path.lexists(file):
        return []
    check_regular(file)
    try:
        *lines, cut_off = file.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror}", where=str(file)) from error
    return lines + ([cut_off] if values_of(cut_off) is not None else [])


def _is_of(line: bytes, fingerprint: str) -> bool:
    """Whether a line is of a stage, or of a part of it."""
    return str((values_of(line) or {}).get("fingerprint")).partition("-")[0] == fingerprint


def recorded_log(file: Path, record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A new record of a log, as it is; where it does not begin as recorded, the old record, which tells the damage."""
    if not file.is_file() or (record is not None and log_damage(file, record) is not None):
        return record
    return file_record(file)


def log_damage(file: Path, record: Mapping[str, Any]) -> str | None:
    """How a log differs from its record, which does not cover the lines that were added since; None if it does not."""
    if not file.is_file():
        return "it is missing"
    if (size := file.stat().st_size) < record["size"]:
        return f"it has {size:,} bytes instead of at least {record['size']:,}"
    if sha256_of(file, record["size"]) != record["sha256"]:
        return "its content has changed since it was written"
    return None


def wrong_lines(file: Path) -> list[int]:
    """The numbers of the lines, from 1, that are not JSON objects; a kill may cut off the last one."""
    lines = file.read_bytes().split(b"\n")[:-1]
    return [number for number, line in enumerate(lines, start=1) if values_of(line) is None]


def _is_after(line: bytes, fingerprint: str, step: int) -> bool:
    values = values_of(line) or {}
    logged = values.get("step", 0)
    return values.get("fingerprint") == fingerprint and isinstance(logged, (int, float)) and logged > step


def values_of(line: bytes) -> dict[str, Any] | None:
    """The values of a line; None if it is damaged."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
