"""metrics.jsonl: one line per logged step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RunError
from robustok_core.runs.files import write_text, writing


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Adds one JSON line to a file."""
    with writing(file), file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(values) + "\n")


def drop_lines(file: Path, fingerprint: str, after_step: int) -> None:
    """Drops a stage's lines after a step, which an interrupted run logged and will log again.

    Lines of the same stage with another configuration have another fingerprint and stay.
    """
    if not file.exists():
        return
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror}", where=str(file), hint="move it away") from error
    kept = []
    for line in lines:
        try:
            values = json.loads(line)
            dropped = values.get("fingerprint") == fingerprint and values.get("step", 0) > after_step
        except (ValueError, TypeError, AttributeError, RecursionError):  # a killed run leaves a part of a line
            continue
        if not dropped:
            kept.append(line)
    write_text(file, "".join(f"{line}\n" for line in kept))
