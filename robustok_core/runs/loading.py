"""[load]: artifacts of other runs, and published checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.dataset import Dataset
from robustok_core.kinds.promise import Promise
from robustok_core.recipe.recipe import LoadConfig, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.assumed import Assumed
from robustok_core.runs.components import OPPONENTS_FILE, read_artifact, save_component
from robustok_core.runs.files import write_tensors
from robustok_core.runs.fingerprints import content_fingerprint, fingerprint_of, sha256_of
from robustok_core.runs.folder import RunFolder, find_artifact
from robustok_core.runs.history import HISTORY, RECIPE_FILE
from robustok_core.runs.hub import is_there, local_path, pinned
from robustok_core.runs.inputs import find_input
from robustok_core.runs.intact import artifact_damage, check_artifact
from robustok_core.runs.left_out import with_options_left_out
from robustok_core.runs.manifest import recorded_folder, set_aside
from robustok_core.runs.promises import Imported, Loaded
from robustok_core.runs.run_record import is_run, read_run
from robustok_core.runs.shard_index import files_of
from robustok_core.runs.weights import check_weights
from robustok_core.values.spec import Spec, plain


def find_loaded(name: str, load: LoadConfig, location: str) -> Path:
    """The artifact folder or published file that an entry of [load] names.

    Raises:
        RobustokError: if it does not exist, or is not what the entry says.
    """
    path = local_path(load.path, location)
    if not path.exists():
        hint = f"paths in [load] are relative to the working directory, {Path.cwd()}"
        raise RobustokError(f"[load] {name}: {path}: there is no such file or folder", where=location, hint=hint)
    if load.importer is not None:
        refuse_kind(load.importer, load.importer.factory.makes, name, location, f"[load] {name}: ")
    try:
        return path if load.importer is not None else find_artifact(path, name)
    except RobustokError as error:
        raise RobustokError(
            f"[load] {name}: {error.placed}", where=location, hint=error.hint, exit_code=error.exit_code
        ) from error


def refuse_kind(importer: Spec, made: str | None, wanted: str, where: str, entry: str = "") -> None:
    """Raises RobustokError, located at `where`, if an importer makes another kind than the one that is wanted.

    Args:
        importer: the importer. made: what it makes, or made of a file; None if that is not known yet.
        wanted: "tokenizer" or "generator". entry: "[load] NAME: " for an entry of [load].
    """
    if made not in (None, wanted):
        what = f"{entry}the importer {importer.name!r} makes a {made}, not a {wanted}"
        raise RobustokError(what, where=where, hint="`robustok plugins importer` lists them")


def open_loaded(name: str, load: LoadConfig, recipe: ResolvedRecipe, run: RunFolder, registry: Builder) -> Loaded:
    """Opens an entry of [load] as a promise for the stages' checks. A published checkpoint is read into memory.

    Raises:
        RobustokError: if there is no such artifact, it is in this run's own folder, or the checkpoint cannot be read.
    """
    location, run_folder = recipe.source.location(("load", name)), run.path.resolve()
    if taken := _taken_before(name, load, run.path):
        return Loaded(registry, *taken)
    path = find_loaded(name, load, location)
    if load.importer is None:
        if run_folder in (Path(load.path).resolve(), *path.resolve().parents):
            what = (
                f"[load] {name}: {load.path}: this is the folder of the run itself, which would load its own artifact"
            )
            raise RobustokError(what, where=location, hint="give this run another name: --set run.name=NAME")
        return Loaded(registry, path, content_fingerprint(path))
    files = [*files_of(path), *load.importer.build().also_reads(path)]
    contents = [content_fingerprint(file) for file in files]
    fingerprint = fingerprint_of([load.importer.table(), *contents])
    folder = run.artifact(name, fingerprint)
    imported = None if artifact_damage(folder) is None else read_published(load.importer, path, registry)
    made = read_artifact(folder).kind if imported is None else imported.kind
    refuse_kind(load.importer, made, name, location, f"[load] {name}: ")
    return Loaded(registry, folder, fingerprint, imported)


def open_all(
    recipe: ResolvedRecipe,
    run: RunFolder,
    registry: Registry,
    assumed: Assumed | None,
    dataset: Callable[[], Dataset],
    awaited: Mapping[str, Promise],
) -> tuple[dict[str, Promise], list[RobustokError]]:
    """The promise of each entry of [load], and what is wrong with the others.

    Args:
        assumed: describes what is not here; None if everything must be. dataset: opens the data set.
        awaited: of entries that another run will make before this one begins.
    """
    promises: dict[str, Promise] = {}
    problems: list[RobustokError] = []
    for name, load in recipe.load.items():
        try:
            if name in awaited:
                promises[name] = awaited[name]
            elif assumed is not None and not is_there(load.path):
                promises[name] = assumed.component(name, load, recipe, promises, dataset)
            else:
                promises[name] = open_loaded(name, load, recipe, run, registry)
        except RobustokError as error:
            problems.append(error)
    return promises, problems


def _taken_before(name: str, load: LoadConfig, run: Path) -> tuple[Path, str] | None:
    """What the run took for the same entry before, where the entry's path is no longer there, and its fingerprint."""
    if is_there(load.path) or not is_run(run):
        return None
    try:
        before = tomli.loads((run / RECIPE_FILE).read_text(encoding="utf-8"))["load"][name]
        record = read_run(run)
        if {**before, "expect": None} != {**plain(load), "expect": None}:
            return None
        folder = find_input(run, record, name)
    except (RobustokError, OSError, ValueError, KeyError, TypeError):  # then the path that is not there is refused
        return None
    check_artifact(folder)
    return folder, content_fingerprint(folder) if load.importer is None else folder.name.rpartition("-")[2]


def component_specs(load: LoadConfig, loaded: Loaded, registry: Builder) -> list[Spec]:
    """The importer of an entry of [load], and the component in its artifact, where it is one."""
    found = read_artifact(loaded.folder) if loaded.imported is None else loaded.imported
    component = [] if found.table is None else [registry.spec(found.kind, found.table)]
    return [*component, *([] if load.importer is None else [load.importer])]


def read_published(importer: Spec, file: Path, registry: Builder) -> Imported:
    """Reads a published checkpoint with its importer.

    Raises:
        RobustokError: if the file is not such a checkpoint, or weights of the component are not finite.
    """
    built = importer.build()
    try:
        table, component, report = built.load(file, registry)
    except RobustokError as error:
        if error.where is not None:
            raise
        # of the component that the weights describe
        what = f"the model of these weights cannot be built: {error.what}"
        name = built.chosen or importer.name
        options = f"options of the importer may say otherwise: `robustok plugins importer {name}` lists them"
        raise RobustokError(what, where=str(file), hint=error.hint or options) from error
    check_weights(component, component.state_dict(), str(file))
    report = with_options_left_out(report, importer.config, table)
    imported = Imported(file, table, component, report, built.opponents(file))
    if not imported.opponents:
        return imported
    kept = f"kept for post_train, whose loss must be called {', '.join(imported.losses_with_opponent)}"
    return attrs.evolve(imported, report={**report, "discriminator": kept})


def keep_imported(imported: Imported, target: Path, run: RunFolder) -> list[str]:
    """Writes a component from a published checkpoint into a run's folder, and records it; returns what to say of it."""
    said = []
    if os.path.lexists(target):
        kept = set_aside(target, run.path / HISTORY)
        said.append(f"{target} is damaged; it is imported again, and the damaged one is now {kept}")
    save_imported(imported, target)
    run.record["imported"] = sorted({*run.record.get("imported", []), target.name})
    run.save()
    return said


def save_imported(imported: Imported, folder: Path) -> None:
    """Writes a component from a published checkpoint as an artifact."""
    about: dict[str, Any] = {"imported_from": imported.file.name, "report": dict(imported.report)}
    if (source := pinned(imported.file)) is not None:
        about |= {"imported_from": str(source), "sha256": sha256_of(imported.file)}
    with recorded_folder(folder) as aside:
        if imported.opponents:
            about["opponents"] = imported.losses_with_opponent
            write_tensors(aside / OPPONENTS_FILE, imported.opponents)
        save_component(aside, imported.kind, imported.table, imported.component, **about)
