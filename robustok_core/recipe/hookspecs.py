"""The hooks of robustok, which plugins implement with `@hookimpl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pluggy

from robustok_core.values.result import Result

#: A plugin for another version declares it in its module attribute ROBUSTOK_HOOKS and is refused.
HOOK_VERSION = 1

hookspec = pluggy.HookspecMarker("robustok")
hookimpl = pluggy.HookimplMarker("robustok")

#: register(kind, name, component_class)
Register = Callable[[str, str, type], None]


@hookspec
def robustok_register(register: Register) -> None:
    """Registers components: call `register(kind, name, component_class)` for each."""


@hookspec
def robustok_published_files() -> Path:  # type: ignore[empty-body]
    """Returns a TOML file that lists published files of the plugin's importers, for `robustok import --list`."""


@hookspec
def robustok_run_started(folder: Path, recipe: Mapping[str, Any]) -> None:
    """A run starts or resumes in `folder`; `recipe` is resolved, with every default written out."""


@hookspec
def robustok_run_finished(folder: Path, results: Mapping[str, Result], registry: Any) -> None:
    """A run is complete; `results` holds the results of all stages by "stage/metric", as in results.json.

    `registry` is the one that the run used, with which its components can be built.
    """


@hookspec
def robustok_stage_started(folder: Path, stage: str) -> None:
    """A stage starts or resumes (main process only, like all hooks except registration)."""


@hookspec
def robustok_stage_finished(folder: Path, stage: str, results: Mapping[str, Result]) -> None:
    """A stage is complete, with its results by name; `result.value` is the number."""


@hookspec
def robustok_step_logged(folder: Path, stage: str, step: int, values: Mapping[str, float]) -> None:
    """A line of metrics was written (main process only)."""


@hookspec
def robustok_report_section(run: Any) -> Any:
    """A run's report is written: returns a `Section` or several, or None if the run has nothing to show.

    `run` is a `ReportedRun` of `robustok_toolkit.reported_run`; `robustok_toolkit.report_parts` has `Section` and what
    it may hold. A plugin that fails is named in the report, which is written without it.
    """
