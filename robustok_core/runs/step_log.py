"""metrics.jsonl: one line per logged step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RunError
from robustok_core.runs.files import check_regular, new_file, writing


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
    check_regular(file)
    try:
        *lines, cut_off = file.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror}", where=str(file)) from error
    lines += [cut_off] if values_of(cut_off) is not None else []
    kept = [line for line in lines if not _is_after(line, fingerprint, after_step)]
    with new_file(file) as unfinished:
        unfinished.write_bytes(b"".join(line + b"\n" for line in kept))


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
