"""Runs a recipe: checks everything, then runs each stage whose fingerprint is new."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from accelerate.utils import broadcast_object_list
from rich.console import Console

from robustok_core.errors import Interrupted, RobustokError, RunError, raise_all
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import StageContext
from robustok_core.recipe.recipe import NamedStage, Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry, load_registry
from robustok_core.runs.accelerator import auto_precision, make_accelerator
from robustok_core.runs.code import Code
from robustok_core.runs.context import RunContext
from robustok_core.runs.files import remove_folder
from robustok_core.runs.finished import due_stages
from robustok_core.runs.folder import RunFolder
from robustok_core.runs.history import HISTORY
from robustok_core.runs.loading import component_specs, open_loaded, save_imported
from robustok_core.runs.manifest import next_free, set_aside
from robustok_core.runs.plan import Plan, make_plan
from robustok_core.runs.precision import settled
from robustok_core.runs.promises import Loaded
from robustok_core.runs.provenance import now, peak_memory, surroundings
from robustok_core.runs.results import stage_results, tables_of
from robustok_core.runs.run_record import read_run
from robustok_core.runs.stage_fingerprints import StageFingerprints
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec


def run(
    recipe: Recipe | ResolvedRecipe,
    *,
    registry: Registry | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    accept_old_code: bool = False,
    console: Console | None = None,
) -> dict[str, Result]:
    """Runs a recipe to its end, skipping finished stages and resuming an interrupted one.

    Args:
        recipe: what to run.
        registry: the components; by default those of all installed plugins.
        out: the folder that holds the runs' folders; the recipe's `run.out` by default.
        fresh: start over in a new folder.
        accept_old_code: take what a stage made before its plugins changed, instead of running it again.
        console: where to print; silent by default.

    Returns:
        The results by "stage/metric", as in results.json.

    Raises:
        RobustokError: see errors.py; a ProblemsError holds all mistakes in a recipe.
    """
    registry = registry or load_registry()
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
    executed = _Run(resolved, registry, Path(out or resolved.run.out), fresh, console)
    executed.accept_old_code = accept_old_code
    return executed.go()


def check(recipe: Recipe | ResolvedRecipe, *, registry: Registry | None = None) -> Plan:
    """Makes all checks of `run`, including those of the data, without running the recipe; returns its plan.

    Raises:
        RobustokError: as `run`.
    """
    registry = registry or load_registry()
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
    return _Run(resolved, registry, Path(resolved.run.out), False, None).plan()


class _Run:
    """One command's work on one recipe."""

    def __init__(
        self, recipe: ResolvedRecipe, registry: Registry, out: Path, fresh: bool, console: Console | None
    ) -> None:
        path = out / recipe.run.name
        # Before the processes connect, so that none of them can have created the folder yet.
        self.folder = RunFolder(next_free(path) if fresh else path)
        self.auto = auto_precision()
        self.recipe, self.registry = settled(recipe, self.auto), registry
        self.precision = self.auto if self.recipe is not recipe else None
        self.accelerator = make_accelerator(self.recipe, self.folder.path)
        self.console = console if self.accelerator.is_main_process else None
        self.built: dict[str, Any] = {}
        self.artifacts: dict[str, tuple[Path, str]] = {}
        self.loaded: dict[str, Loaded] = {}
        self.promised: dict[str, Mapping[str, Promise]] = {}
        self.accept_old_code = False
        self.code: Mapping[str, Code] = {}
        self.without_code: Mapping[str, str] = {}
        self.loaded_specs: dict[str, list[Spec]] = {}

    @cached_property
    def surroundings(self) -> dict[str, Any]:
        return {"processes": self.accelerator.num_processes, **surroundings()}

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    def context(
        self,
        stage: NamedStage,
        fingerprint: str = "",
        *,
        recipe: ResolvedRecipe | None = None,
        promises: Mapping[str, Promise] | None = None,
        makers: Mapping[str, str] | None = None,
    ) -> RunContext:
        needs = stage.spec.factory.needs
        return RunContext(
            recipe=recipe or self.recipe,
            registry=self.registry,
            accelerator=self.accelerator,
            stage=stage.name,
            fingerprint=fingerprint,
            folder=self.folder,
            inputs={name: self.artifacts[name][0] for name in needs if name in self.artifacts},
            console=self.console,
            promises=promises or {},
            makers=makers or {},
            built=self.built,
        )

    def plan(self) -> Plan:
        """Opens [load] and checks every stage before the first one runs."""
        problems: list[RobustokError] = []
        for name, load in self.recipe.load.items():
            try:
                self.loaded[name] = open_loaded(name, load, self.recipe, self.folder, self.registry)
            except RobustokError as error:
                problems.append(error)
        plan, misfits = make_plan(self.recipe, self.loaded, self._context_of)
        raise_all([*problems, *misfits])
        self.recipe = settled(plan.recipe, self.auto)  # samplers have options of their own
        self.promised = {stage.name: stage.makes for stage in plan.stages}
        return attrs.evolve(plan, recipe=self.recipe)

    def _context_of(
        self,
        recipe: ResolvedRecipe,
        stage: NamedStage,
        promises: Mapping[str, Promise],
        makers: Mapping[str, str],
    ) -> StageContext:
        return self.context(stage, recipe=recipe, promises=promises, makers=makers)

    def go(self) -> dict[str, Result]:
        self.plan()
        try:
            self._open()
            return self._go()
        finally:
            if self.main:
                self.folder.close()

    def _open(self) -> None:
        """The main process opens the folder; the others then read its record."""
        if self.main:
            self.folder.open()
            self.folder.save()
        self.accelerator.wait_for_everyone()
        if not self.main:
            self.folder.record = read_run(self.folder.path)
        self.accelerator.wait_for_everyone()

    def _go(self) -> dict[str, Result]:
        table = self.recipe.table()
        if self.recipe.run.trackers:  # they write into the folder, which must be open by now
            run = self.recipe.run
            self.accelerator.init_trackers("robustok", config={"run": run.name, "seed": run.seed})
        if self.folder.repaired:
            self._say(self.folder.repaired)
        if self.precision is not None:
            self._say_precision(self.precision)
        inputs = {name: self._load(name) for name in self.recipe.load}
        self.loaded.clear()  # lets go of imported components, which are on the disk now
        fingerprints = StageFingerprints(
            recipe=self.recipe,
            registry=self.registry,
            record=self.folder.record,
            inputs={name: fingerprint for name, (_, fingerprint) in self.artifacts.items()},
            loaded=self.loaded_specs,
            data=self._data_fingerprint,
            accept_old_code=self.accept_old_code,
            say=self._say,
        )
        planned = fingerprints.compute()
        self.code, self.without_code = fingerprints.code, fingerprints.without_code
        if self.main:
            self.folder.record |= {"name": self.recipe.run.name, "seed": self.recipe.run.seed}
            makes = {stage.name: stage.spec.factory.makes for stage in self.recipe.stages}
            if changed := self.folder.make_current(self.recipe.toml(), planned, makes, inputs):
                self._say(changed)
            self.registry.hook.robustok_run_started(folder=self.folder.path, recipe=table)
        due = self._due(planned)
        results: dict[str, Result] = {}
        for stage in self.recipe.stages:
            stage_results = self._stage(stage, planned[stage.name], due=stage.name in due)
            results |= {f"{stage.name}/{name}": result for name, result in stage_results.items()}
        if self.main:
            if damaged := self.folder.write_results(json.dumps(tables_of(results), indent=2) + "\n"):
                self._say(damaged)
            self.registry.hook.robustok_run_finished(folder=self.folder.path, results=results)
        self.accelerator.end_training()
        return results

    def _say_precision(self, auto: str) -> None:
        meaning = {
            "bf16": "bf16, which is computed natively here",
            "no": "float32, as not every device here is known to compute bf16 natively",
        }
        self._say(f"precision auto: {meaning[auto]}")

    def _say(self, text: str) -> None:
        self.context(self.recipe.stages[0]).say(text)

    def _load(self, name: str) -> Path:
        """Makes an artifact of another run, or of a published checkpoint, available to the stages; returns its path."""
        loaded = self.loaded[name]
        if self.main and loaded.imported is not None:
            if os.path.lexists(loaded.folder):
                kept = set_aside(loaded.folder, self.folder.path / HISTORY)
                self._say(f"{loaded.folder} is damaged; it is imported again, and the damaged one is now {kept}")
            save_imported(loaded.imported, name, loaded.folder)
        path = self.recipe.load[name].path
        if not Path(path).exists():
            self._say(f"[load] {name}: {path} is no longer there; what this run took from it is used: {loaded.folder}")
        self.accelerator.wait_for_everyone()
        self.artifacts[name] = (loaded.folder, loaded.fingerprint)
        self.loaded_specs[name] = component_specs(self.recipe.load[name], loaded.folder, self.registry)
        return loaded.folder

    def _due(self, planned: Mapping[str, str]) -> list[str]:
        """The stages that must run; damaged artifacts are moved to history/."""
        agreed: list[Any] = [[]]
        if self.main:
            due = due_stages(self.folder, self.recipe.stages, planned)
            agreed[0] = list(due)
            for stage in self.recipe.stages:
                if damage := due.get(stage.name):
                    self._say(f"{damage}; stage {stage.name} runs again")
                    for name in stage.spec.factory.makes:
                        if os.path.lexists(artifact := self.folder.artifact(name, planned[stage.name])):
                            kept = set_aside(artifact, self.folder.path / HISTORY)
                            self._say(f"  what it made before is now {kept}")
        broadcast_object_list(agreed)
        return agreed[0]

    def _data_fingerprint(self) -> list[str]:
        dataset = self.context(self.recipe.stages[0]).dataset()
        return [dataset.train.fingerprint, dataset.validation.fingerprint]

    def _stage(self, stage: NamedStage, fingerprint: str, *, due: bool) -> Mapping[str, Result]:
        entry = self.folder.stage(stage.name, fingerprint)
        context = self.context(stage, fingerprint)
        artifacts = {name: self.folder.artifact(name, fingerprint) for name in stage.spec.factory.makes}
        if due:
            self._run_stage(stage, context, entry)
        else:
            context.say(f"{stage.name}: done before, unchanged")
        self.artifacts |= {name: (path, fingerprint) for name, path in artifacts.items()}
        return stage_results(entry, str(self.folder.path))

    def _run_stage(self, stage: NamedStage, context: RunContext, entry: dict[str, Any]) -> None:
        began, before = time.monotonic(), entry["seconds"]
        entry |= {"state": "running", "started": now(), "without_code": self.without_code[stage.name]}
        made_with = {**self.surroundings, "plugins": self.code[stage.name]}
        if self.main and made_with not in entry.setdefault("made_with", []):
            entry["made_with"].append(made_with)  # more than one if it resumed elsewhere
        self._save()
        if self.main:
            self.registry.hook.robustok_stage_started(folder=self.folder.path, stage=stage.name)
        try:
            values = stage.spec.build().run(context)
            results = self._results(stage, values)
            self._check_promised(stage, context)
            entry["results"] = tables_of(results)
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
        self.accelerator.wait_for_everyone()
        if self.main:
            if context.discards:
                remove_folder(context.checkpoints)
            self.registry.hook.robustok_stage_finished(folder=self.folder.path, stage=stage.name, results=results)

    def _results(self, stage: NamedStage, values: Any) -> dict[str, Result]:
        try:
            return {name: Result.of(value) for name, value in values.items()}
        except (AttributeError, TypeError, ValueError) as error:
            what = f"the `run` of stage {stage.name!r} must return numbers or Results by name, found {values!r}"
            raise RunError(what) from error

    def _check_promised(self, stage: NamedStage, context: RunContext) -> None:
        """Later stages were checked against what this one promised of its artifacts."""
        for artifact, promise in self.promised[stage.name].items():
            folder = self.folder.artifact(artifact, context.fingerprint)
            if not folder.exists():
                hint = f"`run` of the stage's class must fill the folder of context.making({artifact!r})"
                raise RunError(f"stage {stage.name!r} has not made the {artifact}", where=context.location(), hint=hint)
            if type(promise) is Promise:
                continue
            made = type(promise).of_artifact(folder, self.registry)
            if made.describe() != promise.describe():
                what = f"stage {stage.name!r} promised {promise.describe()!r} of the {artifact} and made"
                hint = "mend the `plan` of the stage's class"
                raise RunError(f"{what} {made.describe()!r}", where=context.location(), hint=hint)

    def _go_on(self, context: RunContext) -> str:
        # A checkpoint, or shards of what the stage makes.
        saved = any(path.is_file() for path in context.checkpoints.rglob("[!.]*"))
        effect = "resumes from the last checkpoint" if saved else "starts this stage again"
        name = self.folder.path.name
        other = "" if name == self.recipe.run.name else f", with --set run.name={name} instead of --fresh,"
        return f"the same command{other} {effect}: {self.folder.path}"

    def _save(self) -> None:
        if self.main:
            self.folder.save()
