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
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # the last line of a killed run may be truncated
            continue
        if values.get("fingerprint") != fingerprint or values.get("step", 0) <= after_step:
            kept.append(line)
    write_text(file, "".join(f"{line}\n" for line in kept))
