"""metrics.jsonl: one line per logged step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    with writing(file):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    write_text(file, "".join(f"{line}\n" for line in lines if _stays(line, fingerprint, after_step)))


def _stays(line: str, fingerprint: str, after_step: int) -> bool:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):  # the last line of a killed run may be truncated
        return False
    if not isinstance(values, dict):
        return False
    step = values.get("step", 0)
    return values.get("fingerprint") != fingerprint or (isinstance(step, int) and step <= after_step)
