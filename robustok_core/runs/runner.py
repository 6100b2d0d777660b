"""Runs a recipe: checks everything, then runs each stage whose fingerprint is new."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from robustok_core.errors import Interrupted, RobustokError, RunError, raise_all
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import StageContext
from robustok_core.recipe.recipe import NamedStage, Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry, load_registry
from robustok_core.recipe.samplers import without_sampler_options
from robustok_core.runs.accelerator import auto_precision, make_accelerator
from robustok_core.runs.context import RunContext
from robustok_core.runs.downloads import needs_of_recipe, without_repeats
from robustok_core.runs.failures import named_failures
from robustok_core.runs.files import read_json, remove_folder
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.folder import RUN_FILE, RunFolder, next_free
from robustok_core.runs.interrupt import stop_signals
from robustok_core.runs.loading import open_loaded, save_imported
from robustok_core.runs.plan import Plan, make_plan
from robustok_core.runs.precision import settled
from robustok_core.runs.promises import Loaded
from robustok_core.runs.provenance import now, peak_memory, surroundings
from robustok_core.runs.replay import replay as replay_stage
from robustok_core.runs.results import RESULTS_FILE, results_of, tables_of
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec


def run(
    recipe: Recipe | ResolvedRecipe,
    *,
    registry: Registry | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    console: Console | None = None,
    replay: bool = False,
) -> dict[str, Result]:
    """Runs a recipe to its end, skipping finished stages and resuming an interrupted one.

    Args:
        recipe: what to run.
        registry: the components; by default those of all installed plugins.
        out: the folder that holds the runs' folders; the recipe's `run.out` by default.
        fresh: start over in a new folder.
        console: where to print; silent by default.
        replay: look again into the step at which a training stopped because a loss, gradient or weight was not finite;
            raises a RunError that says what was found.

    Returns:
        The results by "stage/metric", as in results.json.

    Raises:
        RobustokError: see errors.py; a ProblemsError holds all mistakes in a recipe.
        KeyboardInterrupt: the user asked to stop before the first stage or after the last one.
    """
    registry = registry or load_registry()
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
    with stop_signals():
        one = _Run(resolved, registry, Path(out or resolved.run.out), fresh, console)
        one.replay = replay
        return one.go()


def check(
    recipe: Recipe | ResolvedRecipe,
    *,
    registry: Registry | None = None,
    announce: Callable[[str], None] | None = None,
) -> Plan:
    """Makes all checks of `run`, including those of the data, without running the recipe; returns its plan.

    Args:
        recipe: what to check. registry: as in `run`.
        announce: called with a line for each file that a run would download. A data set that is not here is downloaded
            by the check itself.

    Raises:
        RobustokError: as `run`.
    """
    registry = registry or load_registry()
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
    missing = needs_of_recipe(resolved, resolved.stages).announced(announce or (lambda _: None))
    try:
        plan = _Run(resolved, registry, Path(resolved.run.out), False, None).plan()
    except RobustokError as error:
        raise_all([*missing, *without_repeats(error, missing)])
        raise
    raise_all(missing)
    return plan


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
        self.replay = False
        self.built: dict[str, Any] = {}
        self.artifacts: dict[str, tuple[Path, str]] = {}
        self.loaded: dict[str, Loaded] = {}
        self.promised: dict[str, Mapping[str, Promise]] = {}

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
            replay=self.replay,
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
        if "data" in self.recipe.tables:  # the plan opens it
            raise_all(needs_of_recipe(self.recipe, [], tables=("data",)).announced(self._say))
        self.plan()
        if not self.folder.path.exists():  # nothing is done before, and nothing remains of a run that cannot be
            self._provide(self.recipe.stages)
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
            self.folder.record = read_json(self.folder.path / RUN_FILE)
        self.accelerator.wait_for_everyone()

    def _go(self) -> dict[str, Result]:
        table = self.recipe.table()
        if self.recipe.run.trackers:  # they write into the folder, which must be open by now
            run = self.recipe.run
            self.accelerator.init_trackers("robustok", config={"run": run.name, "seed": run.seed})
        if self.precision is not None:
            self._say_precision(self.precision)
        inputs = {name: self._load(name) for name in self.recipe.load}
        self.loaded.clear()  # lets go of imported components, which are on the disk now
        planned = self._fingerprints()
        self._provide([stage for stage in self.recipe.stages if not self._done(stage, planned[stage.name])])
        if self.main:
            self.folder.record |= {"name": self.recipe.run.name, "seed": self.recipe.run.seed}
            if "data" in self.recipe.tables:
                self.folder.record["data"] = dict(zip(("train", "validation"), self._data_fingerprint(), strict=True))
            makes = {stage.name: stage.spec.factory.makes for stage in self.recipe.stages}
            self.folder.make_current(self.recipe.toml(), planned, makes, inputs)
            self._notify("robustok_run_started", recipe=table)
        results: dict[str, Result] = {}
        for stage in self.recipe.stages:
            stage_results = self._stage(stage, planned[stage.name])
            results |= {f"{stage.name}/{name}": result for name, result in stage_results.items()}
        if self.main:
            self.folder.write_current(RESULTS_FILE, json.dumps(tables_of(results), indent=2) + "\n")
            self._notify("robustok_run_finished", results=results)
        self.accelerator.end_training()
        return results

    def _notify(self, hook: str, **arguments: Any) -> None:
        self.context(self.recipe.stages[0]).notify(hook, **arguments)

    def _say(self, text: str) -> None:
        self.context(self.recipe.stages[0]).say(text)

    def _provide(self, stages: Sequence[NamedStage]) -> None:
        """Downloads what these stages need, so that none of them fails for it after hours."""
        needs = needs_of_recipe(self.recipe, stages)
        raise_all(needs.problems)
        if self.main and needs.downloads:
            raise_all(needs.fetch(self._say))
        self.accelerator.wait_for_everyone()

    def _say_precision(self, auto: str) -> None:
        meaning = {
            "bf16": "bf16, which is computed natively here",
            "no": "float32, as not every device here is known to compute bf16 natively",
        }
        self._say(f"precision auto: {meaning[auto]}")

    def _load(self, name: str) -> str:
        """Makes an artifact of another run, or of a published checkpoint, available to the stages; returns its path."""
        loaded = self.loaded[name]
        if self.main and loaded.imported is not None and not loaded.folder.exists():
            save_imported(loaded.imported, name, loaded.folder)
        self.accelerator.wait_for_everyone()
        self.artifacts[name] = (loaded.folder, loaded.fingerprint)
        return str(loaded.folder.resolve())

    def _fingerprints(self) -> dict[str, str]:
        """The fingerprint of each stage by name, computed from those of its inputs before any stage runs."""
        inputs = {name: fingerprint for name, (_, fingerprint) in self.artifacts.items()}
        fingerprints = {}
        for stage in self.recipe.stages:
            fingerprints[stage.name] = self._fingerprint(stage, inputs)
            inputs |= dict.fromkeys(stage.spec.factory.makes, fingerprints[stage.name])
        return fingerprints

    def _fingerprint(self, stage: NamedStage, inputs: Mapping[str, str]) -> str:
        kind = stage.spec.factory
        tables = {name: self.recipe.tables[name] for name in (*kind.uses, *kind.may_use) if name in self.recipe.tables}
        if "generator" not in kind.needs:  # it samples nothing, whatever is known of the generator
            tables = {name: attrs.evolve(t, config=without_sampler_options(t.config)) for name, t in tables.items()}
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

    def _stage(self, stage: NamedStage, fingerprint: str) -> Mapping[str, Result]:
        entry = self.folder.stage(stage.name, fingerprint)
        context = self.context(stage, fingerprint)
        artifacts = self._artifacts_of(stage, fingerprint)
        if self._done(stage, fingerprint):
            context.say(f"{stage.name}: done before, unchanged")
        elif self.replay:
            replay_stage(stage, context)
        else:
            self._run_stage(stage, context, entry)
        self.artifacts |= {name: (path, fingerprint) for name, path in artifacts.items()}
        return results_of(entry["results"])

    def _artifacts_of(self, stage: NamedStage, fingerprint: str) -> dict[str, Path]:
        return {name: self.folder.artifact(name, fingerprint) for name in stage.spec.factory.makes}

    def _done(self, stage: NamedStage, fingerprint: str) -> bool:
        """Whether the stage was done before, with everything that it makes."""
        done = self.folder.stage(stage.name, fingerprint)["state"] == "done"
        return done and all(path.exists() for path in self._artifacts_of(stage, fingerprint).values())

    def _run_stage(self, stage: NamedStage, context: RunContext, entry: dict[str, Any]) -> None:
        began, before = time.monotonic(), entry["seconds"]
        entry |= {"state": "running", "started": now()}
        if self.main and (made_with := self.surroundings) not in entry.setdefault("made_with", []):
            entry["made_with"].append(made_with)  # more than one if it resumed elsewhere
        self._save()
        try:
            if self.main:
                context.notify("robustok_stage_started", stage=stage.name)
            results = self._results(stage, self._values(stage, context))
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
            context.notify("robustok_stage_finished", stage=stage.name, results=results)

    def _values(self, stage: NamedStage, context: RunContext) -> Any:
        with named_failures(stage.name, context.location()):
            return stage.spec.build().run(context)

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


def shaping(spec: Spec) -> dict[str, Any]:
    """A component's table without the options that do not affect the result (`metadata={"result": False}`)."""
    neutral = {a.name for a in attrs.fields(type(spec.config)) if not a.metadata.get("result", True)}
    return {name: value for name, value in spec.table().items() if name not in neutral}
