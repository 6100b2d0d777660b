"""Runs a recipe: checks everything, then runs each stage whose fingerprint is new."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from robustok_core.errors import RobustokError, raise_all
from robustok_core.kinds.dataset import Dataset
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import StageContext
from robustok_core.recipe.recipe import NamedStage, Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry, given_registry
from robustok_core.runs.accelerator import auto_precision, make_accelerator, part_ways
from robustok_core.runs.assumed import Assumed, Launch
from robustok_core.runs.code import Code
from robustok_core.runs.context import RunContext, opened_data
from robustok_core.runs.downloads import needs_of_recipe
from robustok_core.runs.execution import execute
from robustok_core.runs.finished import due_stages, set_damaged_aside, stage_damage
from robustok_core.runs.folder import RunFolder
from robustok_core.runs.hub import is_there
from robustok_core.runs.interrupt import stop_signals
from robustok_core.runs.loading import component_specs, keep_imported, open_all
from robustok_core.runs.made_from import recorded
from robustok_core.runs.main_process import from_main
from robustok_core.runs.manifest import Damage, next_free
from robustok_core.runs.named_files import look_at
from robustok_core.runs.near_runs import run_hint
from robustok_core.runs.opening import resolved_recipe
from robustok_core.runs.plan import Plan, make_plan
from robustok_core.runs.precision import settled
from robustok_core.runs.promises import Loaded
from robustok_core.runs.provenance import surroundings
from robustok_core.runs.readable import unreadable_at_start
from robustok_core.runs.replay import check_replay
from robustok_core.runs.replay import replay as replay_stage
from robustok_core.runs.results import stage_results
from robustok_core.runs.reuse import runs_at, take_finished
from robustok_core.runs.run_record import MadeFrom, is_run, read_run
from robustok_core.runs.stage_fingerprints import StageFingerprints
from robustok_core.runs.summary import lines_at_start, print_end
from robustok_core.runs.trackers import start_trackers
from robustok_core.values.full_precision import without_tf32
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec

_log = logging.getLogger(__name__)


def run(
    recipe: Recipe | ResolvedRecipe,
    *,
    registry: Registry | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    accept_old_code: bool = False,
    until: str | None = None,
    console: Console | None = None,
    replay: bool = False,
    reuse: Sequence[Path] = (),
) -> dict[str, Result]:
    """Runs a recipe to its end, skipping finished stages and resuming an interrupted one.

    Args:
        recipe: what to run.
        registry: the components; by default those of all installed plugins.
        out: the folder that holds the runs' folders; the recipe's `run.out` by default.
        fresh: start over in a new folder.
        accept_old_code: take what a stage made before its plugins changed, instead of running it again.
        until: stop after the stage of this name; results of later stages that were done before are kept. Where later
            stages do not fit what they would get, that is a warning now, and refused once it is their turn.
        console: where to print; silent by default.
        replay: look again into the step at which a training stopped because a loss, gradient or weight was not finite;
            raises a RunError that says what was found.
        reuse: runs, or folders that hold runs; stages that are finished there with the same fingerprint are taken.

    Returns:
        The results by "stage/metric", as in results.json.

    Raises:
        RobustokError: see errors.py; a ProblemsError holds all mistakes in a recipe.
        KeyboardInterrupt: the user asked to stop before the first stage or after the last one.
    """
    registry = given_registry(registry)
    resolved = resolved_recipe(recipe, registry)
    if until is not None:
        resolved.stages_until(until)  # raises if there is no such stage
    runs_at(reuse)  # raises if there is no such folder
    with stop_signals(), without_tf32():
        one = RecipeRun(resolved, registry, Path(out or resolved.run.out), fresh, console)
        one.replay, one.accept_old_code, one.until, one.reuse = replay, accept_old_code, until, reuse
        return one.go()


class RecipeRun:
    """One command's work on one recipe."""

    def __init__(
        self, recipe: ResolvedRecipe, registry: Registry, out: Path, fresh: bool, console: Console | None
    ) -> None:
        path = out / recipe.run.name
        self.auto = auto_precision()  # connects the processes
        self.folder = RunFolder(from_main(lambda: next_free(path) if fresh else path))
        self.recipe, self.registry = settled(recipe, self.auto), registry
        self.precision = self.auto if self.recipe is not recipe else None
        self.accelerator = make_accelerator(self.recipe, self.folder.path)
        self.console = console if self.accelerator.is_main_process else None
        self.replay = False
        self.built: dict[str, Any] = {}
        self.artifacts: dict[str, tuple[Path, str]] = {}
        self.loaded: dict[str, Loaded] = {}
        self.promised: dict[str, Mapping[str, Promise]] = {}
        self.accept_old_code = False
        self.until: str | None = None
        self.reuse: Sequence[Path] = ()
        self.code: Mapping[str, Code] = {}
        self.without_code: Mapping[str, str] = {}
        self.made_from: Mapping[str, MadeFrom] = {}
        self.again: Mapping[str, str] = {}
        self.loaded_specs: dict[str, list[Spec]] = {}
        self.refused_later: Sequence[str] = ()
        self.assumed: Assumed | None = None
        self.launch: Launch | None = None
        self.awaited: Mapping[str, Promise] = {}

    @cached_property
    def surroundings(self) -> dict[str, Any]:
        """The versions, machine and command of this process, how many processes there are, and what "auto" came to."""
        return {"auto_precision": self.precision, **surroundings(self.accelerator)}

    @property
    def main(self) -> bool:
        """Whether this is the main process."""
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
        """The context of a stage, for its plan or its run."""
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
            assumed=self.assumed,
            launch=self.launch,
            replay=self.replay,
        )

    def plan(self) -> Plan:
        """Opens [load] and checks every stage before the first one runs."""
        promises, problems = open_all(self.recipe, self.folder, self.registry, self.assumed, self.dataset, self.awaited)
        self.loaded = {name: promise for name, promise in promises.items() if isinstance(promise, Loaded)}
        plan, misfits = make_plan(self.recipe, promises, self._context_of)
        asked = {stage.name for stage in self._asked()}
        raise_all([*problems, *(problem for stage, found in misfits.items() if stage in asked for problem in found)])
        later = [str(problem) for stage, found in misfits.items() if stage not in asked for problem in found]
        self.refused_later = list(dict.fromkeys(later))
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
        """Runs the stages that are due; returns all results."""
        # the plan opens the data and [load]; what an earlier run of this folder took need not be there any more
        needs = needs_of_recipe(self.recipe, [], tables=("data",), loaded=from_main(self._is_there))
        raise_all(needs.announced(self._say))
        self.plan()
        if self.main:
            for problem in self.refused_later:
                _log.warning("this will be refused when the run goes on after %s: %s", self.until, problem)
        # Where the folder is new, nothing is done before, and nothing remains of a run that cannot be.
        if not from_main(self.folder.path.exists):
            if self.replay:
                what = "there is no such run, so no step of it can be replayed"
                raise RobustokError(what, where=str(self.folder.path), hint=run_hint(self.folder.path))
            raise_all(from_main(lambda: unreadable_at_start(self.recipe, self._asked(), self.dataset)))
            self._provide(self._asked())
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
        start_trackers(self.accelerator, self.recipe, self.folder.path)
        for line in (*self.folder.notes, *lines_at_start(self.recipe, self.precision, self.accelerator)):
            self._say(line)
        inputs = {name: self._load(name) for name in self.recipe.load}
        self.loaded.clear()  # lets go of imported components, which are on the disk now
        planned = self.fingerprints()
        self._take_finished(planned)
        due = self._due(planned)
        asked = self._asked()
        to_run = [stage for stage in asked if stage.name in due]
        if self.replay:
            check_replay(self.folder, to_run, planned)
        self._provide(to_run)
        if self.main and not self.replay:
            self._make_current(planned, inputs)
            for line in set_damaged_aside(self.folder, self.recipe.stages, due, planned):
                self._say(line)
            self._say_why(to_run)
        self._notify("robustok_run_started", recipe=self.recipe.table())
        results: dict[str, Result] = {}
        for stage in self.recipe.stages:
            if stage not in asked and stage.name in due:
                continue
            of_stage = self._stage(stage, planned[stage.name], due=stage.name in due)
            results |= {f"{stage.name}/{name}": result for name, result in of_stage.items()}
        part_ways(self.accelerator)
        if self.main:
            self.folder.write_results(results)
            self._notify("robustok_run_finished", results=results, registry=self.registry)
            print_end(
                self.console,
                self.folder,
                results,
                [stage.name for stage in self.recipe.stages if stage not in asked and stage.name in due],
                self.refused_later,
            )
        self.accelerator.end_training()
        return results

    def _make_current(self, planned: Mapping[str, str], inputs: Mapping[str, Path]) -> None:
        self.folder.record |= {"name": self.recipe.run.name, "seed": self.recipe.run.seed}
        if "data" in self.recipe.tables:
            self.folder.record["data"] = dict(zip(("train", "validation"), self._data_fingerprint(), strict=True))
        makes = {stage.name: stage.spec.factory.makes for stage in self.recipe.stages}
        for line in self.folder.make_current(self.recipe.toml(), planned, makes, inputs):
            self._say(line)

    def _say_why(self, stages: Sequence[NamedStage]) -> None:
        for stage in stages:
            if stage.name in self.again:
                self._say(f"{stage.name} runs again: {self.again[stage.name]}")

    def _asked(self) -> Sequence[NamedStage]:
        return self.recipe.stages if self.until is None else self.recipe.stages_until(self.until)

    def _notify(self, hook: str, **arguments: Any) -> None:
        if self.main:
            self.context(self.recipe.stages[0]).notify(hook, **arguments)

    def _say(self, text: str) -> None:
        self.context(self.recipe.stages[0]).say(text)

    def _provide(self, stages: Sequence[NamedStage]) -> None:
        """Downloads what these stages need, so that none of them fails for it after hours."""
        needs = needs_of_recipe(self.recipe, stages, loaded=True)
        raise_all(needs.problems)
        if self.main and needs.downloads:
            raise_all(needs.fetch(self._say))
        self.accelerator.wait_for_everyone()

    def _load(self, name: str) -> Path:
        """Makes an artifact of another run, or of a published checkpoint, available to the stages; returns its path."""
        loaded = self.loaded[name]
        if self.main and loaded.imported is not None:
            for line in keep_imported(loaded.imported, loaded.folder, self.folder):
                self._say(line)
        path = self.recipe.load[name].path
        if not is_there(path):
            self._say(f"[load] {name}: {path} is no longer there; what this run took from it is used: {loaded.folder}")
        self.accelerator.wait_for_everyone()
        self.take_loaded(name, loaded)
        return loaded.folder

    def take_loaded(self, name: str, loaded: Loaded) -> None:
        """Makes an artifact from [load] an input of the stages."""
        self.artifacts[name] = (loaded.folder, loaded.fingerprint)
        self.loaded_specs[name] = component_specs(self.recipe.load[name], loaded, self.registry)

    def _take_finished(self, planned: Mapping[str, str]) -> None:
        """Takes stages that another run has finished, so that they are not due here."""
        if not self.reuse or self.replay:
            return
        if self.main:
            for line in take_finished(self.folder, self._asked(), planned, runs_at(self.reuse)):
                self._say(line)
        self.accelerator.wait_for_everyone()
        if not self.main:
            self.folder.record = read_run(self.folder.path)

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each stage by name, from those of its inputs, before any stage runs."""
        fingerprints = StageFingerprints(
            recipe=self.recipe,
            registry=self.registry,
            record=self.folder.record,
            inputs={name: fingerprint for name, (_, fingerprint) in self.artifacts.items()},
            loaded=self.loaded_specs,
            data=self._data_fingerprint,
            look_at=lambda path: from_main(lambda: look_at(path)),
            damage=lambda stage, other: from_main(lambda: stage_damage(self.folder, stage, other)),
            accept_old_code=self.accept_old_code,
            say=self._say,
        )
        planned = fingerprints.compute()
        self.code, self.without_code = fingerprints.code, fingerprints.without_code
        self.made_from, self.again = fingerprints.made_from, fingerprints.again
        return planned

    def _due(self, planned: Mapping[str, str]) -> dict[str, Damage | None]:
        """The stages that must run; see `due_stages`."""
        return from_main(lambda: due_stages(self.folder, self.recipe.stages, planned))

    def _is_there(self) -> bool:
        return is_run(self.folder.path)

    def dataset(self) -> Dataset:
        """The data set, opened once."""
        return opened_data(self.recipe, self.built, self.assumed)

    def _data_fingerprint(self) -> list[str]:
        return [split.fingerprint for split in (self.dataset().train, self.dataset().validation)]

    def _stage(self, stage: NamedStage, fingerprint: str, *, due: bool) -> Mapping[str, Result]:
        entry = self.folder.stage(stage.name, fingerprint)
        context = self.context(stage, fingerprint)
        artifacts = {name: self.folder.artifact(name, fingerprint) for name in stage.spec.factory.makes}
        if not due:
            context.say(f"{stage.name}: done before, unchanged")
        elif self.replay:
            replay_stage(stage, context)
        else:
            self._execute(stage, context, entry)
        self.artifacts |= {name: (path, fingerprint) for name, path in artifacts.items()}
        return stage_results(entry, self.folder.path)

    def _execute(self, stage: NamedStage, context: RunContext, entry: dict[str, Any]) -> None:
        if not from_main(context.checkpoints.exists):
            entry["manifests"] = True
        entry["without_code"] = self.without_code[stage.name]
        entry["made_from"] = recorded(self.made_from[stage.name])
        made_with = {**self.surroundings, "plugins": self.code[stage.name]}
        if self.main and made_with not in entry.setdefault("made_with", []):
            entry["made_with"].append(made_with)  # more than one if it resumed elsewhere
        execute(stage, context, entry, promised=self.promised[stage.name], save=self._save, plan=self.plan)
        context.track_pictures([self.folder.artifact(name, context.fingerprint) for name in stage.spec.factory.makes])
        if self.main:
            self.folder.record_log()
            self.folder.save()

    def _save(self) -> None:
        if self.main:
            self.folder.save()
