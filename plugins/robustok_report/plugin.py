"""Writes a report at the end of each run, and provides its first-party sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustok_core.recipe.hookspecs import hookimpl


@hookimpl
def robustok_run_finished(folder: Path, registry: Any) -> None:
    from robustok_report.report import REPORT_FILE, is_wanted, write_report

    if is_wanted(folder):
        write_report([folder], folder / REPORT_FILE, registry=registry)


@hookimpl
def robustok_report_section(run: Any) -> Any:
    from robustok_report.report import first_party_sections

    return first_party_sections(run)
