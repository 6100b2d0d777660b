"""What is said where weights are used with other code than that which trained them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import Registry
from robustok_core.runs.code import code_of, differences, recorded_code
from robustok_core.runs.components import read_component
from robustok_core.runs.run_record import maker_of

_log = logging.getLogger(__name__)


def note_old_code(registry: Registry, artifact: Path) -> None:
    """Logs which packages of a component changed since the run that holds its artifact trained it.

    Nothing is said of an artifact that is in no run, or whose code was not recorded.
    """
    if changed := _changed(registry, artifact):
        _log.warning("%s: the code of %s changed since it was trained", artifact, ", ".join(changed))


def _changed(registry: Registry, artifact: Path) -> list[str]:
    maker: Mapping[str, Any] | None = maker_of(artifact)
    code = None if maker is None else recorded_code(maker)
    if code is None:
        return []
    record = read_component(artifact)
    try:
        now = code_of([registry.spec(record.kind, record.table)], registry)
    except RobustokError:  # it cannot be built, which is said where it is loaded
        return []
    return differences({name: about for name, about in code.items() if name in now}, now)
