"""[load]: artifacts of other runs, and published checkpoints."""

from __future__ import annotations

from typing import Any
from robustok_core.recipe.recipe import LoadConfig
from collections.abc import Mapping
from pathlib import Path
from robustok_core.recipe.registry import Registry
from robustok_core.errors import RobustokError
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.files import new_folder
from robustok_core.runs.components import save_component


def find_loaded(name: str, load: LoadConfig, place: str) -> Path:
    """The artifact's folder or the published file that an entry of [load] names.

    Raises:
        RobustokError: where there is none.
    """
    path = Path(load.path)
    if not path.exists():
        hint = f"paths in [load] are relative to the working directory, {Path.cwd()}"
        raise RobustokError(f"[load] {name}: {path}: there is no such file or folder", where=place, hint=hint)
    if load.importer is not None and load.importer.factory.makes != name:
        what = f"[load] {name}: the importer {load.importer.name!r} makes a {load.importer.factory.makes}"
        raise RobustokError(what, where=place, hint="`robustok plugins importer` lists them")
    try:
        return path if load.importer is not None else find_artifact(path, name)
    except RobustokError as error:
        raise RobustokError(f"[load] {name}: {error.where}: {error.what}", where=place, hint=error.hint) from error


def import_component(registry: Registry, load: LoadConfig, kind: str, folder: Path) -> Mapping[str, Any]:
    """Reads a published checkpoint and writes it as an artifact; returns the importer's report."""
    assert load.importer is not None
    table, module, report = load.importer.build().load(Path(load.path), registry)
    with new_folder(folder) as aside:
        save_component(aside, kind, table, module, imported_from=Path(load.path).name, report=dict(report))
    return report
