"""Loads the trained tokenizer or generator of a run, an artifact, or a published file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import Registry
from robustok_core.runs.components import (
    ComponentRecord,
    load_component,
    read_artifact,
    read_component,
)
from robustok_core.runs.folder import find_artifact, is_artifact
from robustok_core.runs.hub import hub_file_of, local_path
from robustok_core.runs.inputs import may_be_input
from robustok_core.runs.intact import check_artifact
from robustok_core.runs.loading import read_published, refuse_kind
from robustok_core.runs.near_runs import no_run
from robustok_core.runs.old_code import note_old_code
from robustok_core.runs.run_record import is_run, read_run

#: The folder of the tokenizer in a generator's, where `robustok push` wrote both.
TOKENIZER_FOLDER = "tokenizer"
#: What the place of a trained component can be, for messages.
RUN_OR_ARTIFACT = "the folder of a run or an artifact, or a published file, by its path"


@frozen(kw_only=True, eq=False)
class Trained:
    """A component with its weights, in eval mode on its device.

    Attributes:
        module: the component. where: its folder or file, for messages.
        record: the content of its component.json.
    """

    module: Any
    where: Path
    record: ComponentRecord


def load_trained(
    registry: Registry, where: Path, kind: str, *, device: torch.device, importer: str | Mapping[str, Any] | None
) -> Trained:
    """Loads the tokenizer or generator of a run, an artifact, or a published file.

    Args:
        registry: builds it.
        where: the folder of a run or an artifact (of another kind: its run is searched), or, with an importer, a
            published file, also hf://OWNER/REPOSITORY/FILE, whose importer may be left out.
        kind: "tokenizer" or "generator".
        device: the device that it runs on.
        importer: of the published file: its name, or a recipe table with `use`.

    Raises:
        RobustokError: if it does not exist, or is not of this kind.
    """
    if importer is None and hub_file_of(str(where)) is not None:
        importer = "auto"
    if importer is not None:
        return _imported(registry, local_path(str(where), None), kind, device, importer)
    if where.is_file():
        hint = "name the importer of a published file; `robustok plugins importer` lists them"
        raise RobustokError("this is a file, not the folder of a run or an artifact", where=str(where), hint=hint)
    folder = artifact_of(where, kind)
    module = load_component(registry, folder).to(device)
    note_old_code(registry, folder)
    return Trained(module=module, where=folder, record=read_component(folder))


def refuse_other(where: Path, kind: str) -> None:
    """Raises RobustokError if this is an artifact of another kind, though `load_trained` could find one in its run."""
    if is_artifact(where) and (held := read_artifact(where).kind) != kind:
        hint = f"name the folder of a {kind}, or the run's folder for its newest {kind}"
        raise RobustokError(f"this folder holds the artifact {held!r}, not a {kind}", where=str(where), hint=hint)


def _imported(
    registry: Registry, file: Path, kind: str, device: torch.device, importer: str | Mapping[str, Any]
) -> Trained:
    spec = registry.spec("importer", {"use": importer} if isinstance(importer, str) else importer)
    refuse_kind(spec, spec.factory.makes, kind, str(file))
    if not file.exists():
        raise RobustokError("there is no such file", where=str(file), hint="an importer reads a published file")
    imported = read_published(spec, file, registry)
    refuse_kind(spec, imported.kind, kind, str(file))
    module: Any = imported.component.to(device).eval()
    of_generator = {"space": module.space, "num_classes": module.num_classes} if kind == "generator" else {}
    return Trained(module=module, where=file, record=ComponentRecord(kind=kind, table=imported.table, **of_generator))


def artifact_of(run: Path, name: str) -> Path:
    """The folder of an artifact of a run; `run` may also be the folder of another artifact of the same recipe.

    A generator that `robustok push` wrote has its tokenizer in a folder within its own.

    Raises:
        RobustokError: if it does not exist.
    """
    if not run.exists():
        raise no_run(run)
    if not is_artifact(run):
        return find_artifact(run, name)
    check_artifact(run)
    if (kind := read_artifact(run).kind) == name:
        return run
    if name == "tokenizer" and is_artifact(run / TOKENIZER_FOLDER):
        return find_artifact(run / TOKENIZER_FOLDER, name)
    run_folder = run.resolve().parent.parent  # runs/NAME/artifacts/...
    if not is_run(run_folder):
        what = f"this folder holds only a {kind}, but a {name} is needed too"
        raise RobustokError(what, where=str(run), hint=f"name the folder of a run that made or loaded a {name}")
    record = read_run(run_folder)
    is_current = run.resolve().name.rpartition("-")[2] in record.get("current", {}).values()
    if not is_current and not may_be_input(run_folder, record, run):
        what = f"this {kind} does not belong to the current recipe of {run_folder}, so its {name} cannot be found"
        raise RobustokError(
            what, where=str(run), hint="run the recipe that made it again, with the same or another name"
        )
    return find_artifact(run_folder, name)
