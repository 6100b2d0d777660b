"""The context of a stage: the recipe, the inputs, the folders for artifacts, and the log."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from attrs import define, field
from rich.console import Console

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.kinds.dataset import Dataset
from robustok_core.kinds.promise import Promise, PromiseT
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.recipe.recipe import ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.assumed import Assumed, Launch
from robustok_core.runs.components import load_component
from robustok_core.runs.declared import Declared, Inputs
from robustok_core.runs.environment import shards_weights
from robustok_core.runs.folder import RunFolder
from robustok_core.runs.manifest import recorded_folder
from robustok_core.runs.step_log import LOG_FILE, append_line, drop_lines
from robustok_core.runs.trackers import track_pictures
from robustok_core.values.draws import derive_seed, seeded
from robustok_core.values.spec import Spec, wrong_name
from robustok_core.values.speed import Speed
from robustok_core.values.terminal import say


@define(kw_only=True, eq=False)
class RunContext(StageContext):
    """The context of one stage of a recipe. See `robustok_core.kinds.stage.StageContext`.

    Attributes:
        recipe: the resolved recipe. folder: the run's folder.
        promises: of the artifacts that the stage needs, by name; empty while it runs.
        makers: the stages that make these artifacts, by artifact.
        parts: names of the training within the stage that this context is for.
        discards: whether the checkpoints are to be removed once the stage is recorded as done.
        built: the data set, once it is opened; shared by all stages of the run.
        assumed: what is not on this machine, where a recipe is only planned; None if nothing may be missing.
        launch: how the recipe will be launched, where it is not as this process was.
        declared: what the stage's class declares, to which it is held.
    """

    recipe: ResolvedRecipe
    registry: Registry
    accelerator: Accelerator
    stage: str
    fingerprint: str = ""
    folder: RunFolder
    inputs: Mapping[str, Path] = field(factory=dict)
    console: Console | None = None
    promises: Mapping[str, Promise] = field(factory=dict)
    makers: Mapping[str, str] = field(factory=dict)
    parts: tuple[str, ...] = ()
    discards: bool = field(default=False, init=False)
    built: dict[str, Any] = field(factory=dict)
    assumed: Assumed | None = None
    launch: Launch | None = None
    replay: bool = False
    run_name: str = field(init=False)
    run_seed: int = field(init=False)
    seed: int = field(init=False)
    speed: Speed = field(init=False)
    device: torch.device = field(init=False)
    checkpoints: Path = field(init=False)
    cache: Path = field(init=False)
    declared: Declared = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.run_name, self.run_seed = self.recipe.run.name, self.recipe.run.seed
        self.speed = self.recipe.run.speed
        self.seed = derive_seed(self.run_seed, self.stage)
        self.device = self.accelerator.device
        self.checkpoints = self.folder.checkpoints(self.stage, self.fingerprint).joinpath(*self.parts)
        self.cache = self.folder.path.parent / ".cache"
        self.declared = Declared(self.stage, self._kind())
        self.inputs = Inputs(self.inputs, self.declared)

    @property
    def processes(self) -> int:  # type: ignore[override]
        return self.accelerator.num_processes if self.launch is None else self.launch.processes

    @property
    def divides_weights(self) -> bool:  # type: ignore[override]
        return self.processes > 1 and (shards_weights() if self.launch is None else self.launch.divides_weights)

    @property
    def manifests(self) -> bool:  # type: ignore[override]  # it changes when the stage begins
        entry = self.folder.record["stages"].get(f"{self.stage}-{self.fingerprint}", {})
        return bool(entry.get("manifests", False))

    def _kind(self) -> type[Stage]:
        return next(named.spec.factory for named in self.recipe.stages if named.name == self.stage)

    def has(self, table: str) -> bool:
        self.declared.require_table(table)
        return table in self.recipe.tables

    def spec(self, table: str) -> Spec:
        if not self.has(table):
            raise RobustokError(f"stage {self.stage!r} needs a table [{table}]", where=self.location())
        return self.recipe.tables[table]

    def dataset(self) -> Dataset:
        self.spec("data")
        return opened_data(self.recipe, self.built, self.assumed)

    def may_be_absent(self, what: str) -> bool:
        if self.assumed is None:
            return False
        self.assumed.say(f"stage {self.stage}: {what} is not here")
        return True

    def build(self, table: str, *args: Any) -> Any:
        spec = self.spec(table)
        with seeded(self.run_seed, "init", table):
            return spec.build(*args)

    def sketch(self, table: str, *args: Any) -> Any:
        spec = self.spec(table)
        try:
            return spec.sketch(*args)
        except RobustokError as error:
            if error.where is not None:
                raise
            raise RobustokError(error.what, where=self.location(table=table), hint=error.hint) from error

    def promise(self, artifact: str, kind: type[PromiseT]) -> PromiseT:
        self.declared.require_need(artifact)
        if artifact not in self.promises:
            what = f"stage {self.stage!r} asks for a promise of {artifact!r} while it runs"
            raise RobustokError(what, hint="read promises in `check` and `plan` only")
        try:
            return self.promises[artifact].read(kind)
        except RobustokError as error:
            if artifact not in self.makers:
                raise
            maker = self.makers[artifact]
            what = f"stage {maker!r} makes the {artifact} that stage {self.stage!r} reads: {error.what}"
            raise RobustokError(what, where=self._stage_location(maker), hint=error.hint) from error

    def discard_checkpoints(self) -> None:
        self.discards = True

    def load(self, artifact: str) -> Any:
        return load_component(self.registry, self.inputs[artifact]).to(self.device)

    @contextmanager
    def making(self, artifact: str) -> Iterator[Path | None]:
        self.declared.require_made(artifact, self.fingerprint)
        if self.accelerator.is_main_process:
            with recorded_folder(self.folder.artifact(artifact, self.fingerprint)) as aside:
                yield aside
        else:
            yield None
        self.accelerator.wait_for_everyone()

    def part(self, name: str) -> RunContext:
        if wrong := wrong_name(name):
            raise RobustokError(f"a part of stage {self.stage!r} cannot be called {name!r}: {wrong}")
        return attrs.evolve(self, parts=(*self.parts, name))

    def location(self, *keys: str, table: str | None = None) -> str:
        return self._stage_location(self.stage, *keys) if table is None else self._location(table, *keys)

    def _stage_location(self, stage: str, *keys: str) -> str:
        index = [named.name for named in self.recipe.stages].index(stage)
        return self._location("stage", index, *keys)

    def _location(self, *path: str | int) -> str:
        return self.recipe.source.location(path)

    def located(self, error: RobustokError, *keys: str, table: str | None = None) -> RobustokError:
        named = ".".join([*(("stage", self.stage) if table is None else (table,)), *keys])
        return RobustokError(f"{named}: {error.what}", where=self.location(*keys, table=table), hint=error.hint)

    def say(self, text: str) -> None:
        if self.console is not None:
            say(self.console, text)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        self.folder.require_here()
        line = {"stage": self.stage, "fingerprint": self._log_fingerprint, "step": step, **values}
        append_line(self.folder.path / LOG_FILE, line)
        curve = "/".join([self.stage, *self.parts])  # the steps of every part begin at 0
        self._track({f"{curve}/{name}": value for name, value in values.items()}, step)
        self.notify("robustok_step_logged", stage=self.stage, step=step, values=dict(values))

    def _track(self, values: Mapping[str, float], step: int) -> None:
        with self._trackers_may_fail():
            self.accelerator.log(dict(values), step=step)

    def track_pictures(self, artifacts: Sequence[Path]) -> None:
        """Shows the pictures in what the stage made to the trackers."""
        if self.accelerator.is_main_process and self.accelerator.trackers:
            with self._trackers_may_fail():
                track_pictures(self.accelerator, self.stage, artifacts)

    @contextmanager
    def _trackers_may_fail(self) -> Iterator[None]:
        """A tracker that fails (no network, a full disk) does not end the run."""
        try:
            yield
        except Exception as error:
            if not self.built.get("tracker_failed"):
                self.say(f"a tracker failed ({type(error).__name__}: {error}); the run and metrics.jsonl go on")
            self.built["tracker_failed"] = True

    def notify(self, hook: str, **arguments: Any) -> None:
        """Calls a hook of the plugins with the run's folder; says which of them failed."""
        for message in self.registry.notify(hook, folder=self.folder.path, **arguments):
            self.say(message)

    def forget_log_after(self, step: int) -> None:
        if self.accelerator.is_main_process:
            self.folder.forget_log()
            drop_lines(self.folder.path / LOG_FILE, self._log_fingerprint, step)

    @property
    def _log_fingerprint(self) -> str:
        return "-".join([self.fingerprint, *self.parts])


def opened_data(recipe: ResolvedRecipe, built: dict[str, Any], assumed: Assumed | None = None) -> Dataset:
    """The data set that [data] describes, opened once for all stages, which share `built`.

    Args:
        assumed: what may be missing; a data set that may is replaced by what its options say of it.

    Raises:
        RobustokError: it cannot be opened; the message has the line of the option that names what it is about.
    """
    if "data" not in built:
        spec = recipe.tables["data"]
        try:
            built["data"] = spec.build() if assumed is None else assumed.dataset(spec)
        except ProblemsError:
            raise
        except RobustokError as error:
            key = _key_of_place(spec.config, error)
            about = f"{error.where}: " if error.where not in (None, *key) else ""
            what, where = f"{'.'.join(('data', *key))}: {about}{error.what}", recipe.source.location(("data", *key))
            raise RobustokError(what, where=where, hint=error.hint, exit_code=error.exit_code) from error
    dataset: Dataset = built["data"]
    return dataset


def _key_of_place(config: Any, error: RobustokError) -> tuple[str, ...]:
    """The option of a data set that names the place that a message is about; none if no option does."""
    where = error.where or ""
    texts = {
        option: value
        for option in attrs.fields(type(config))
        if isinstance(value := getattr(config, option.name), str) and value
    }
    places = [option.name for option in texts if not option.metadata.get("result", True)]
    keys = [name for name in attrs.fields_dict(type(config)) if name == where]
    keys += [name for name in places if _expanded(getattr(config, name)) in f"{where} {error.hint}"]
    keys += [option.name for option, value in texts.items() if where.startswith(_expanded(value))]
    return tuple(keys[:1])


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 (the text as it is, and no error for an unknown user)
