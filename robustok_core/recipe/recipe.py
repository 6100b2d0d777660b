"""A recipe describes a run. It is checked as a whole; every mistake is reported in one pass."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import date, time
from pathlib import Path
from typing import Any, Literal

import tomli_w
from attrs import field, frozen, validators

from robustok_core.errors import ProblemsError, RobustokError, did_you_mean
from robustok_core.kinds import TABLES
from robustok_core.kinds.stage import tables_of
from robustok_core.recipe.flow import flow_problems, set_in_vain
from robustok_core.recipe.limits import nesting_problem
from robustok_core.recipe.near_keys import recipe_keys, with_near_keys
from robustok_core.recipe.presets import lay_preset
from robustok_core.recipe.registry import Registry, given_registry
from robustok_core.recipe.source import (
    Source,
    check_texts,
    find_recipe,
    override,
    read_source,
    stage_name,
)
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.recipe.structurer import Problem, Structurer
from robustok_core.values.ignored import as_it_was_made
from robustok_core.values.spec import Spec, component, plain, wrong_name
from robustok_core.values.speed import Speed, Switch
from robustok_core.values.wording import short, short_name, short_text

#: How addresses of published files on the Hugging Face hub start; the importer is chosen by the file, if none is named.
HUB = "hf://"
_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class RunConfig:
    """The [run] table."""

    name: str = field(metadata={"doc": "name of the run's folder"})
    seed: int = field(
        default=0, validator=validators.ge(0), metadata={"doc": "seed of every random number", "largest": 2**63 - 1}
    )
    out: str = field(default="runs", metadata={"doc": "folder that holds the runs' folders"})
    precision: Literal["auto", "no", "bf16", "fp16"] = field(
        default="auto",
        metadata={
            "doc": 'mixed precision: "no" (float32), "bf16", "fp16" (CUDA only); "auto" is bf16 if the device '
            "computes it natively, else float32"
        },
    )
    trackers: list[str] = field(
        factory=list,
        validator=validators.deep_iterable(validators.in_(("tensorboard", "trackio", "wandb"))),
        metadata={"doc": 'experiment trackers besides metrics.jsonl: "tensorboard", "trackio", "wandb"'},
    )
    report: bool = field(default=True, metadata={"doc": "write report.html into the run's folder when it ends"})
    compile: Switch = field(
        default="off",
        metadata={
            "doc": 'torch.compile for the repeated blocks of all that computes in a step: "on", "off", or "auto", '
            "which is on for CUDA; changes the last digits of a training; stages may set their own"
        },
    )
    activation_checkpointing: bool = field(
        default=False,
        metadata={
            "doc": "trained blocks are computed again in the backward pass, so that less memory is needed for about a "
            "third more operations; changes no result; stages may set their own"
        },
    )
    channels_last: Switch = field(
        default="auto",
        metadata={
            "doc": 'convolutions of a training keep the channels of a pixel together: "on", "off", or "auto", which is '
            "on for CUDA; changes the last digits"
        },
    )
    tf32: bool = field(
        default=True,
        metadata={
            "doc": "on CUDA, matrix products and convolutions of a training in float32 round their inputs to TF32's 10 "
            "bits; measurements never do"
        },
    )

    @property
    def speed(self) -> Speed:
        """How fast trainings compute."""
        return Speed(
            compile=self.compile,
            activation_checkpointing=self.activation_checkpointing,
            channels_last=self.channels_last,
            tf32=self.tf32,
        )


@frozen(kw_only=True)
class LoadConfig:
    """One entry of [load]: an artifact of another run, or a published checkpoint."""

    path: str = field(
        metadata={
            "doc": "a run's folder, an artifact's folder, or a checkpoint file, also hf://OWNER/REPOSITORY/FILE@REVISION"
        }
    )
    importer: Spec | None = component("importer", doc="reads a published checkpoint", optional=True)
    expect: Any = field(
        default=None,
        validator=validators.optional(validators.instance_of((str, Mapping))),
        metadata={
            "doc": "what is loaded, for `plan` and `check --without-data` on machines without it: the table of a "
            "component, or the name of a recipe that has it"
        },
    )


@frozen(kw_only=True)
class NamedStage:
    """A stage and its name in this recipe."""

    name: str
    spec: Spec


@frozen(kw_only=True)
class ResolvedRecipe:
    """A recipe with every key checked and every default filled in."""

    run: RunConfig
    tables: Mapping[str, Spec]
    stages: Sequence[NamedStage]
    load: Mapping[str, LoadConfig]
    source: Source = field(eq=False)

    @property
    def unread_tables(self) -> list[str]:
        """The tables that no stage reads. [data] is read in any case: a run records it."""
        read = {name for stage in self.stages for name in tables_of(stage.spec.factory)}
        return [name for name in self.tables if name not in read | {"data"}]

    def stages_until(self, stage: str) -> Sequence[NamedStage]:
        """The stages up to this one.

        Raises:
            RobustokError: if there is no such stage.
        """
        names = [named.name for named in self.stages]
        if stage not in names:
            raise RobustokError(f"no stage is called {stage!r}", where="--until", hint=did_you_mean(stage, names))
        return self.stages[: names.index(stage) + 1]

    def table(self) -> dict[str, Any]:
        """The recipe as a table, with every default written out."""
        table: dict[str, Any] = {"run": plain(self.run)}
        if self.load:
            table["load"] = {name: plain(load) for name, load in self.load.items()}
        table |= {name: spec.table() for name, spec in self.tables.items()}
        table["stage"] = [{"name": stage.name, **stage.spec.table()} for stage in self.stages]
        return table

    def toml(self) -> str:
        """The recipe as TOML, with every default written out."""
        return tomli_w.dumps(self.table())


@frozen(kw_only=True)
class Recipe:
    """A recipe as written, before its names are looked up.

    Attributes:
        is_of_run: whether it is that of an existing run, unchanged.
    """

    source: Source
    default_name: str
    is_of_run: bool = False

    @classmethod
    def load(
        cls, name: str | Path, *, overrides: Mapping[str, Any] | Sequence[str] = (), presets: Sequence[str] = ()
    ) -> Recipe:
        """Reads a recipe by file name or bundled name.

        Args:
            name: a path, or the name of a bundled recipe ("main_train").
            overrides: values by dotted path, `{"run.seed": 1, "stage.train_tokenizer.epochs": 2}`, or as on the
                command line, `["run.seed=1"]`.
            presets: recipe fragments merged over it, by file name or bundled name ("presets/released"). Their tables
                and stages that the recipe does not have are left out, with a warning.

        Raises:
            RobustokError: if a file is missing or is not valid TOML, or nothing of a preset fits the recipe.
        """
        file = find_recipe(str(name))
        source = read_source(file)
        check_texts(presets, "presets", '["presets/released"]')
        for fragment in presets:
            preset = read_source(find_recipe(str(fragment)))
            source, left_out = lay_preset(source, preset)
            for problem in left_out:
                _log.warning("%s", located(preset, problem))
        return cls(source=override(source, overrides), default_name=file.stem)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], name: str = "run") -> Recipe:
        """A recipe from a table made in a program.

        Raises:
            RobustokError: if it is no table.
        """
        if not isinstance(table, Mapping):
            raise RobustokError(f"expected a table (a dict), found {short(table)}", where="table")
        return cls(source=Source(dict(table), {(): "recipe"}), default_name=name)

    def resolve(self, registry: Registry) -> ResolvedRecipe:
        """Checks every key and looks up every name.

        Raises:
            ProblemsError: all mistakes in the recipe, each with its location.
        """
        registry = given_registry(registry)
        reader = _Reader(self, registry)
        with as_it_was_made() if self.is_of_run else nullcontext():
            resolved = reader.read()
        if reader.problems:
            table = self.source.table
            problems = with_near_keys(reader.problems, table, lambda: recipe_keys(table, registry.find, RunConfig))
            raise ProblemsError([located(self.source, problem) for problem in problems])
        assert resolved is not None
        return resolved


def located(source: Source, problem: Problem) -> RobustokError:
    """A problem as a user-facing error, located at the file and line of its key."""
    keys = ".".join(short_name(str(key)) for key in _named(source, problem.path))
    what = f"{keys}: {problem.what}" if keys else problem.what
    where = source.location(problem.path)
    return RobustokError(what, where=where, hint=_quoted(source, problem, where) or problem.hint)


def _quoted(source: Source, problem: Problem, where: str) -> str | None:
    """How a text is written that TOML reads as a number, truth value or date; None if that is not the mistake."""
    if "expected str, found" not in problem.what:
        return None
    value: Any = source.table
    for key in problem.path:
        value = value[key]
    if not isinstance(value, (bool, int, float, date, time)):
        return None
    text = json.dumps(str(value).lower() if isinstance(value, bool) else str(value))
    change = f"--set '{where.removeprefix('--set ')}={text}'" if where.startswith("--set ") else text
    return f"a text in quotes: {change}"


def _named(source: Source, path: KeyPath) -> KeyPath:
    """Replaces a stage's index by its name, as in stage.train_tokenizer.epochs, unless that name is the mistake."""
    if len(path) > 1 and path[0] == "stage" and isinstance(path[1], int):
        name = stage_name(source.table["stage"][path[1]])
        return path if wrong_name(name) else ("stage", name, *path[2:])
    return path


class _Reader:
    """Reads a recipe's table in one pass and collects all problems."""

    def __init__(self, recipe: Recipe, registry: Registry) -> None:
        self._recipe = recipe
        self._registry = registry
        self._structurer = Structurer(registry.find)

    @property
    def problems(self) -> list[Problem]:
        return self._structurer.problems

    def read(self) -> ResolvedRecipe | None:
        table = self._recipe.source.table
        if (what := nesting_problem(table)) is not None:
            self.problems.append(Problem((), what))
            return None
        known = ["run", "load", "stage", *TABLES]
        if "arm" in table:
            self.problems.append(Problem(("arm",), "this is a study, not a recipe", "`robustok study FILE` runs it"))
            return None
        for key in table:
            if key not in known:
                what = f"unknown table {short_text(key)}"
                self.problems.append(Problem((key,), what, did_you_mean(key, known), unknown=True))
        run = self._run(table.get("run", {}))
        tables = {
            name: spec
            for name, kind in TABLES.items()
            if name in table and (spec := self._structurer.spec(kind, table[name], (name,))) is not None
        }
        load = self._load(table.get("load", {}))
        stages = self._stages(table.get("stage", []))
        if self.problems:
            return None
        resolved = ResolvedRecipe(run=run, tables=tables, stages=stages, load=load, source=self._recipe.source)
        named = {stage.name: stage.spec.factory for stage in stages}
        self.problems.extend(flow_problems(named, tables, load, self._registry))
        self.problems.extend(set_in_vain(resolved.source, resolved.unread_tables, load, self._registry))
        return resolved

    def _run(self, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            self.problems.append(Problem(("run",), "expected a table"))
            return None
        run = self._structurer.config(RunConfig, {"name": self._recipe.default_name, **raw}, ("run",))
        if run is not None:
            self._check_name("run", run.name, ("run", "name"))
        return run

    def _check_name(self, what: str, name: Any, path: KeyPath) -> None:
        """Checks a run's or stage's name, which becomes a folder name."""
        wrong = wrong_name(name) if isinstance(name, str) else f"expected str, found {type(name).__name__}"
        if wrong is not None:
            self.problems.append(Problem(path, f"a {what} cannot be called {short_text(name)}: {wrong}"))

    def _load(self, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, Mapping):
            self.problems.append(Problem(("load",), "expected a table"))
            return {}
        entries = {}
        for name, value in raw.items():
            table = {"path": value} if isinstance(value, str) else value
            if isinstance(table, Mapping) and str(table.get("path")).startswith(HUB):
                table = {"importer": {"use": "auto"}, **table}
            if isinstance(table, Mapping):
                entries[name] = self._structurer.config(LoadConfig, table, ("load", name))
            else:
                hint = 'a path, or a table: { path = "FILE", importer = { use = "NAME" } }'
                self.problems.append(Problem(("load", name), f"expected a path or a table, found {short(value)}", hint))
        return entries

    def _stages(self, raw: Any) -> list[NamedStage]:
        if not isinstance(raw, list) or not raw:
            hint = 'for example [[stage]] with use = "train_tokenizer"'
            self.problems.append(Problem(("stage",), "a recipe needs at least one [[stage]]", hint))
            return []
        stages: list[NamedStage] = []
        for index, table in enumerate(raw):
            name = stage_name(table)
            rest = {k: v for k, v in table.items() if k != "name"} if isinstance(table, Mapping) else table
            spec = self._structurer.spec("stage", rest, ("stage", index))
            if isinstance(table, Mapping) and "name" in table:
                self._check_name("stage", table["name"], ("stage", index, "name"))
            elif spec is not None:  # the stage's registered name may not be a folder name
                self._check_name("stage", name, ("stage", index, "use"))
            if name in [stage.name for stage in stages]:
                hint = "give one of them a `name` of its own"
                self.problems.append(Problem(("stage", index), f"two stages are called {short_text(name)}", hint))
            if spec is not None:
                stages.append(NamedStage(name=name, spec=spec))
        return stages
