"""Runs a recipe: checks everything, then runs each stage whose fingerprint is new."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import is_tensorboard_available, is_wandb_available, parse_flag_from_env
from rich.console import Console

from robustok_core.artifacts import RUN_FILE, RunFolder, content_fingerprint, find_artifact, fingerprint_of, next_free
from robustok_core.config import Spec
from robustok_core.distributed import all_mean, barrier, world_size
from robustok_core.errors import Interrupted, ProblemsError, RobustokError
from robustok_core.files import new_folder, read_json
from robustok_core.precision import computes_bf16, settled
from robustok_core.provenance import now, peak_memory, surroundings
from robustok_core.recipe import LoadConfig, NamedStage, Recipe, ResolvedRecipe
from robustok_core.registry import Registry, load_registry
from robustok_core.stages import StageContext, save_component


def run(
    recipe: Recipe | ResolvedRecipe,
    *,
    registry: Registry | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    console: Console | None = None,
) -> dict[str, float]:
    """Runs a recipe to its end, skipping what was done and going on with what was interrupted.

    Args:
        recipe: what to run.
        registry: the components; all installed plugins by default.
        out: the folder that holds the runs' folders; the recipe's `run.out` by default.
        fresh: start over in a new folder.
        console: where to write; silent by default.

    Returns:
        The results by "stage/metric", as in results.json.

    Raises:
        RobustokError: see errors.py; ProblemsError holds all mistakes of a recipe.
    """
    registry = registry or load_registry()
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
    return _Run(resolved, registry, Path(out or resolved.run.out), fresh, console).go()


def check(recipe: Recipe | ResolvedRecipe, *, registry: Registry | None = None) -> ResolvedRecipe:
    """Checks a recipe as `run` would, data and fitting parts included, without running it."""
    registry = registry or load_registry()
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
    _Run(resolved, registry, Path(resolved.run.out), False, None).check()
    return resolved


class _Run:
    """One command's work on one recipe."""

    def __init__(
        self, recipe: ResolvedRecipe, registry: Registry, out: Path, fresh: bool, console: Console | None
    ) -> None:
        path = out / recipe.run.name
        # Before the processes meet: none of them can have made the folder yet.
        self.folder = RunFolder(next_free(path) if fresh else path)
        auto = auto_precision()
        self.recipe, self.registry = settled(recipe, auto), registry
        self.precision = auto if self.recipe is not recipe else None
        self.accelerator = make_accelerator(self.recipe, self.folder.path)
        self.console = console if self.accelerator.is_main_process else None
        self.built: dict[str, Any] = {}
        self.artifacts: dict[str, tuple[Path, str]] = {}

    @cached_property
    def surroundings(self) -> dict[str, Any]:
        return {"processes": self.accelerator.num_processes, **surroundings()}

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    def context(self, stage: NamedStage, fingerprint: str = "") -> StageContext:
        needs = stage.spec.factory.needs
        return StageContext(
            recipe=self.recipe,
            registry=self.registry,
            accelerator=self.accelerator,
            stage=stage.name,
            fingerprint=fingerprint,
            folder=self.folder,
            inputs={name: self.artifacts[name][0] for name in needs if name in self.artifacts},
            console=self.console,
            built=self.built,
        )

    def check(self) -> None:
        """Asks every stage whether its parts fit, before the first one runs."""
        problems: list[RobustokError] = []
        for name, load in self.recipe.load.items():
            try:
                self._check_loaded(name, load)
            except RobustokError as error:
                problems.append(error)
        for stage in self.recipe.stages:
            try:
                stage.spec.build().check(self.context(stage))
            except ProblemsError as error:
                problems.extend(error.problems)
            except RobustokError as error:
                problems.append(error)
        unique = list({str(problem): problem for problem in problems}.values())
        if len(unique) == 1:
            raise unique[0]
        if unique:
            raise ProblemsError(unique)

    def _check_loaded(self, name: str, load: LoadConfig) -> None:
        place, own = self.recipe.source.place(("load", name)), self.folder.path.resolve()
        found = find_loaded(name, load, place).resolve()
        if load.importer is None and own in (Path(load.path).resolve(), *found.parents):
            what = f"[load] {name}: {load.path}: this is the folder of this very run, which would load what it makes"
            raise RobustokError(what, where=place, hint="give this run another name: --set run.name=NAME")

    def go(self) -> dict[str, float]:
        self.check()
        try:
            self._open()
            return self._go()
        finally:
            if self.main:
                self.folder.close()

    def _open(self) -> None:
        """The main process takes the folder; the others learn from it what was done before."""
        if self.main:
            self.folder.open()
            self.folder.save()
        barrier()
        if not self.main:
            self.folder.record = read_json(self.folder.path / RUN_FILE)
        barrier()

    def _go(self) -> dict[str, float]:
        table = self.recipe.table()
        if self.recipe.run.trackers:  # they write into the folder, which must be ours by now
            run = self.recipe.run
            self.accelerator.init_trackers("robustok", config={"run": run.name, "seed": run.seed})
        if self.precision is not None:
            self._say_precision(self.precision)
        inputs = {name: self._load(name, load) for name, load in self.recipe.load.items()}
        planned = self._fingerprints()
        if self.main:
            self.folder.record |= {"name": self.recipe.run.name, "seed": self.recipe.run.seed}
            makes = {stage.name: stage.spec.factory.makes for stage in self.recipe.stages}
            self.folder.make_current(self.recipe.toml(), planned, makes, inputs)
            self.registry.hook.robustok_run_started(folder=self.folder.path, recipe=table)
        results: dict[str, float] = {}
        for stage in self.recipe.stages:
            found = self._stage(stage, planned[stage.name])
            results |= {f"{stage.name}/{name}": value for name, value in found.items()}
        if self.main:
            self.folder.write_current("results.json", _json(results))
            self.registry.hook.robustok_run_finished(folder=self.folder.path, results=results)
        self.accelerator.end_training()
        return results

    def _say_precision(self, auto: str) -> None:
        said = {
            "bf16": "bf16, which is computed natively here",
            "no": "float32: not every device here is known to compute bf16 natively",
        }
        self.context(self.recipe.stages[0]).say(f"precision auto: {said[auto]}")

    def _load(self, name: str, load: LoadConfig) -> str:
        """Makes an artifact of another run, or of a published checkpoint, available to the stages; returns its path."""
        path = Path(load.path)
        if load.importer is None:
            folder = find_artifact(path, name)
            fingerprint = content_fingerprint(folder)
        else:
            fingerprint = fingerprint_of([load.importer.table(), content_fingerprint(path)])
            folder = self.folder.artifact(name, fingerprint)
            if self.main and not folder.exists():
                import_component(self.registry, load, name, folder)
            barrier()
        self.artifacts[name] = (folder, fingerprint)
        return str(folder.resolve())

    def _fingerprints(self) -> dict[str, str]:
        """The fingerprint of each stage by name; they are known before any stage runs, as those of their inputs are."""
        inputs = {name: fingerprint for name, (_, fingerprint) in self.artifacts.items()}
        found = {}
        for stage in self.recipe.stages:
            found[stage.name] = self._fingerprint(stage, inputs)
            inputs |= dict.fromkeys(stage.spec.factory.makes, found[stage.name])
        return found

    def _fingerprint(self, stage: NamedStage, inputs: Mapping[str, str]) -> str:
        kind = stage.spec.factory
        tables = {name: self.recipe.tables[name] for name in (*kind.uses, *kind.may_use) if name in self.recipe.tables}
        data = self._data_fingerprint() if "data" in tables else None
        return fingerprint_of(
            {
                "stage": shaping(stage.spec),
                "name": stage.name,
                "tables": {name: spec.table() for name, spec in tables.items()},
                "data": data,
                "run": [self.recipe.run.seed, self.recipe.run.precision],
                "inputs": {name: inputs[name] for name in kind.needs},
            }
        )

    def _data_fingerprint(self) -> list[str]:
        dataset = self.context(self.recipe.stages[0]).dataset()
        return [dataset.train.fingerprint, dataset.validation.fingerprint]

    def _stage(self, stage: NamedStage, fingerprint: str) -> Mapping[str, float]:
        entry = self.folder.stage(stage.name, fingerprint)
        context = self.context(stage, fingerprint)
        made = {name: self.folder.artifact(name, fingerprint) for name in stage.spec.factory.makes}
        if entry["state"] == "done" and all(path.exists() for path in made.values()):
            context.say(f"{stage.name}: done before, unchanged")
        else:
            self._run_stage(stage, context, entry)
        self.artifacts |= {name: (path, fingerprint) for name, path in made.items()}
        return entry["results"]

    def _run_stage(self, stage: NamedStage, context: StageContext, entry: dict[str, Any]) -> None:
        began, before = time.monotonic(), entry["seconds"]
        entry |= {"state": "running", "started": now()}
        if self.main and (made_with := self.surroundings) not in entry.setdefault("made_with", []):
            entry["made_with"].append(made_with)  # more than one where it went on elsewhere
        self._save()
        if self.main:
            self.registry.hook.robustok_stage_started(folder=self.folder.path, stage=stage.name)
        try:
            entry["results"] = dict(stage.spec.build().run(context))
            entry["state"] = "done"
        except KeyboardInterrupt as error:
            entry["state"] = "interrupted"
            raise Interrupted(f"stopped in stage {stage.name!r}", hint=self._go_on(context)) from error
        except Interrupted as error:
            entry["state"] = "interrupted"
            raise Interrupted(error.what, hint=self._go_on(context)) from error
        except BaseException:
            entry["state"] = "failed"
            raise
        finally:
            entry |= {"finished": now(), "seconds": round(before + time.monotonic() - began, 2)}
            entry["peak_memory_gib"] = round(peak_memory(), 3)
            self._save()
        barrier()
        if self.main:
            self.registry.hook.robustok_stage_finished(
                folder=self.folder.path, stage=stage.name, results=entry["results"]
            )

    def _go_on(self, context: StageContext) -> str:
        kept = any(context.checkpoints.glob("[!.]*"))  # a checkpoint, or parts of what the stage makes
        saved = "goes on from the last checkpoint" if kept else "begins this stage again"
        name = self.folder.path.name
        other = "" if name == self.recipe.run.name else f", with --set run.name={name} instead of --fresh,"
        return f"the same command{other} {saved}: {self.folder.path}"

    def _save(self) -> None:
        if self.main:
            self.folder.save()


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


def shaping(spec: Spec) -> dict[str, Any]:
    """A component's table without the options that change no result (`metadata={"result": False}`)."""
    neutral = {a.name for a in attrs.fields(type(spec.config)) if not a.metadata.get("result", True)}
    return {name: value for name, value in spec.table().items() if name not in neutral}


def import_component(registry: Registry, load: LoadConfig, kind: str, folder: Path) -> Mapping[str, Any]:
    """Reads a published checkpoint and writes it as an artifact; returns the importer's report."""
    assert load.importer is not None
    table, module, report = load.importer.build().load(Path(load.path), registry)
    with new_folder(folder) as aside:
        save_component(aside, kind, table, module, imported_from=Path(load.path).name, report=dict(report))
    return report


def own_device() -> torch.device:
    """Where this process computes; the processes meet here the first time."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).device


def auto_precision() -> Literal["no", "bf16"]:
    """What the precision "auto" is: bf16 where the device of every process computes it natively."""
    device = own_device()
    native = torch.tensor(float(computes_bf16(device)), device=device)
    return "bf16" if all_mean(native).item() == 1.0 else "no"


def make_accelerator(recipe: ResolvedRecipe, folder: Path) -> Accelerator:
    """The processes and devices of this run.

    Raises:
        RobustokError: where the precision does not fit the device, or a tracker is not installed.
    """
    precision, device = recipe.run.precision, own_device()
    where = recipe.source.place(("run", "precision"))
    if precision == "fp16" and device.type != "cuda":
        hint = 'set precision = "no", or "bf16", which CPUs can do'
        raise RobustokError('run.precision: "fp16" needs a CUDA device and there is none', where=where, hint=hint)
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise RobustokError('run.precision: this CUDA device has no "bf16"', where=where, hint='use "fp16" or "no"')
    available = {"tensorboard": is_tensorboard_available(), "wandb": is_wandb_available()}
    for tracker in recipe.run.trackers:
        if not available[tracker]:
            hint = f"pip install 'robustok[{tracker}]'"
            place = recipe.source.place(("run", "trackers"))
            raise RobustokError(f"run.trackers: {tracker} is not installed", where=place, hint=hint)
    # Buffers are counted over all processes where they must be (codebook statistics); DDP's broadcast
    # would overwrite what a process gathered within a step.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    # accelerate keeps the precision of the first recipe that a process runs, and refuses another.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            log_with=list(recipe.run.trackers) or None,
            project_dir=str(folder) if recipe.run.trackers else None,
            kwargs_handlers=[ddp],
        )
    except ValueError as error:
        raise RobustokError(f"run.precision: {precision!r} cannot be had here: {error}", where=where) from error
    if accelerator.num_processes != world_size():
        what = f"{world_size()} processes were started, but accelerate works with {accelerator.num_processes}"
        raise RobustokError(what, hint="on machines without a GPU set ACCELERATE_USE_CPU=true before the command")
    return accelerator


def _json(results: Mapping[str, float]) -> str:
    return json.dumps(results, indent=2) + "\n"
