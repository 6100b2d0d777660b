"""Study files: arms, seeds, metrics and claims. All mistakes are found in one pass, each with its file and line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError, did_you_mean, raise_all
from robustok_core.kinds.component import Builder
from robustok_core.recipe.recipe import Recipe, located
from robustok_core.recipe.source import STUDIES, Source, bundled_recipes, bundled_studies, find_recipe, read_source
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.recipe.structurer import Problem, Structurer
from robustok_core.values.spec import run_name, wrong_name
from robustok_core.values.wording import short_name, short_text
from robustok_study.arms import (
    Arm,
    ArmConfig,
    Shared,
    flattened,
    place_of,
    places_added,
    places_in,
    read_arm,
)
from robustok_study.expression import Expression
from robustok_study.file_tables import ClaimConfig, CorrelationConfig, QuickConfig, StudyConfig
from robustok_study.statistics import FEWEST_SEEDS

_TABLES = ("arm", "claim", "correlation", "quick")
#: What a study sets in each run.
_OWN = ("run.seed", "run.name", "run.out")


@frozen(kw_only=True)
class Claim:
    """A claim, read.

    Attributes:
        config: as it stands in the file. expression: its metric. where: its file and line.
    """

    config: ClaimConfig
    expression: Expression
    where: str


@frozen(kw_only=True)
class CorrelationClaim:
    """A claim on a correlation, read; `where`: its file and line."""

    config: CorrelationConfig
    metric: Expression
    predicts: Expression
    better_than: Expression | None
    where: str

    @property
    def expressions(self) -> list[Expression]:
        """The two or three metrics."""
        return [self.metric, self.predicts] + ([] if self.better_than is None else [self.better_than])

    @property
    def names(self) -> list[str]:
        """The results that they are of."""
        return [name for expression in self.expressions for name in expression.names]


@frozen(kw_only=True)
class Study:
    """A study, read and checked as far as that is possible without running anything.

    Attributes:
        file: where it is from. quick: whether its [quick] table is laid over it. config: its top level.
        name: of its folder. seeds: of all arms. base: the arm that others are compared with.
        metrics: by label, with the line of each; empty for all results that have a better direction.
    """

    file: Path
    quick: bool
    config: StudyConfig
    name: str
    seeds: Sequence[int]
    base: Arm
    arms: Sequence[Arm]
    metrics: Mapping[str, Expression]
    metric_lines: Mapping[str, str]
    claims: Sequence[Claim]
    correlations: Sequence[CorrelationClaim]

    @property
    def notes(self) -> list[str]:
        """What should be known before it runs."""
        found = [
            f"arm {arm.name!r} leaves out {', '.join(arm.left_out)} of [set]: its components have no such options"
            for arm in self.arms
            if arm.left_out
        ]
        if self.claims and len(self.seeds) < FEWEST_SEEDS:
            few = f"a verdict needs at least {FEWEST_SEEDS} seeds, and this has {len(self.seeds)}"
            found.append(f"no claim can be decided: {few}")
        return found


def read_study_file(name: str, registry: Builder, *, quick: bool = False) -> Study:
    """Reads a study by file name or bundled name ("claims" or "study/claims").

    Raises:
        RobustokError: if it does not exist; a ProblemsError holds all mistakes in it and in its arms.
    """
    file = _find(name)
    return _Reader(file, read_source(file), registry, quick).read()


def _find(name: str) -> Path:
    """The file of a study: a path, or the name of a bundled one, with or without "study/"."""
    studies, key = bundled_studies(), name.removesuffix(".toml")
    try:
        file, folder = Path(name).is_file(), Path(name).is_dir()
    except (OSError, ValueError):
        return find_recipe(name)  # says what is wrong with the name
    if file or key in bundled_recipes():  # a recipe is told from a study when it is read
        return find_recipe(name)
    for known in (key, f"{STUDIES}{key}"):
        if known in studies:
            return studies[known]
    if folder:
        hint = "name its .toml file; `robustok report FOLDER` shows what a study found"
        raise RobustokError("this is a folder, not the file of a study", where=name, hint=hint)
    short_names = [known.removeprefix(STUDIES) for known in studies]
    what = f"no study file or bundled study is called {short_name(name)!r}"
    raise RobustokError(what, hint=did_you_mean(key.removeprefix(STUDIES), short_names))


class _Reader:
    """Reads a study's table and collects all problems."""

    def __init__(self, file: Path, source: Source, registry: Builder, quick: bool) -> None:
        self._file, self._source, self._quick = file, source, quick
        self._registry = registry
        self._structurer = Structurer(lambda *_: Problem((), "a study names no components"))
        self._errors: list[RobustokError] = []
        self._places: set[str] | None = set()  # of all arms' recipes; None if one of them cannot be read
        self._unread: set[str] = set()  # tables that some arm has, and none of its stages reads

    def read(self) -> Study:
        table = self._source.table
        if "arm" not in table:
            what = "this is a recipe, not a study" if "stage" in table else "a study needs at least one [[arm]]"
            hint = "`robustok run` runs it" if "stage" in table else 'for example [[arm]] with name = "none"'
            raise RobustokError(what, where=str(self._file), hint=hint)
        top: Any = {key: value for key, value in table.items() if key not in _TABLES}
        known = [option.name for option in attrs.fields(StudyConfig)]
        for key in top.keys() - set(known):
            self._problem((key,), f"unknown key {short_text(key)}", did_you_mean(key, [*known, *_TABLES]))
        top = {"name": self._file.stem, **{key: value for key, value in top.items() if key in known}}
        config = self._structurer.config(StudyConfig, top, ())
        quick = self._quick_config()
        arms, claims = self._tables("arm", ArmConfig), self._tables("claim", ClaimConfig)
        if config is None or not arms:
            self._raise()
        if wrong := wrong_name(config.name):
            what = f"a study cannot be called {short_text(config.name)}: {wrong}"
            self._problem(("name",), what, None if "name" in table else 'set name = "..." in the file')
        self._check_beyond(claims)
        self._check_names(config, arms, claims)
        self._check_own(config, quick, arms)
        shared = Shared(set=config.set, quick=quick.set if self._quick and quick is not None else {})
        found = [self._arm(index, arm, config, shared) for index, arm in arms]
        self._check_places(("set",), config.set)
        self._check_places(("quick", "set"), quick.set if quick is not None else {})
        metrics = {label: self._expression(("metrics", label), text) for label, text in config.metrics.items()}
        read = [self._claim(index, claim, metrics) for index, claim in claims]
        correlations = [
            self._correlation(index, one, metrics) for index, one in self._tables("correlation", CorrelationConfig)
        ]
        self._raise()
        return Study(
            file=self._file,
            quick=self._quick,
            config=config,
            name=f"{config.name}-quick" if self._quick else config.name,
            seeds=(quick.seeds if self._quick and quick is not None else None) or config.seeds,
            base=next(arm for arm in found if arm is not None and arm.name == (config.base or arms[0][1].name)),
            arms=[arm for arm in found if arm is not None],
            metrics={label: metric for label, metric in metrics.items() if metric is not None},
            metric_lines={label: self._source.location(("metrics", label)) for label in metrics},
            claims=[claim for claim in read if claim is not None],
            correlations=[one for one in correlations if one is not None],
        )

    def _quick_config(self) -> QuickConfig | None:
        """The table [quick], checked; None if there is none."""
        table = self._source.table.get("quick")
        if table is None:
            if self._quick:
                hint = "add it, or run the study without --quick"
                self._problem((), "--quick needs a table [quick], which says how small everything is", hint)
            return None
        if not isinstance(table, Mapping):
            self._problem(("quick",), "expected a table")
            return None
        config: QuickConfig | None = self._structurer.config(QuickConfig, table, ("quick",))
        return config

    def _raise(self) -> None:
        problems = [located(self._source, problem) for problem in self._structurer.problems]
        raise_all([*problems, *self._errors])

    def _problem(self, path: KeyPath, what: str, hint: str | None = None) -> None:
        self._structurer.problems.append(Problem(path, what, hint))

    def _tables(self, key: str, cls: type) -> list[tuple[int, Any]]:
        """The configurations of an array of tables with their numbers; those with mistakes are left out."""
        found = self._source.table.get(key, [])
        if not isinstance(found, list) or (key == "arm" and not found):
            self._problem((key,), f"expected tables, as in [[{key}]]")
            return []
        configs = []
        for index, table in enumerate(found):
            if not isinstance(table, Mapping):
                self._problem((key, index), "expected a table")
            elif (config := self._structurer.config(cls, table, (key, index))) is not None:
                configs.append((index, config))
        return configs

    def _check_names(
        self, config: StudyConfig, arms: Sequence[tuple[int, Any]], claims: Sequence[tuple[int, Any]]
    ) -> None:
        """Arms have different names that folders can have."""
        names = [arm.name for _, arm in arms]
        for place, (index, arm) in enumerate(arms):
            if wrong := wrong_name(arm.name):
                self._problem(("arm", index, "name"), f"an arm cannot be called {short_text(arm.name)}: {wrong}")
            elif wrong_name(run_name(arm.name, max(config.seeds))):
                longest = 100 - len(run_name("", max(config.seeds)))
                self._problem(("arm", index, "name"), f"the name of an arm has at most {longest} characters here")
            elif arm.name in names[:place]:
                self._problem(("arm", index, "name"), f"two arms are called {arm.name!r}")
        if len(arms) < len(self._source.table["arm"]):  # what the others are called is not known
            return
        for path, name, other in _references(config, arms, claims):
            if name not in names:
                self._problem(path, f"no arm is called {short_text(name)}", did_you_mean(name, names))
            elif name == other:
                self._problem(path, "an arm cannot be compared with itself, or load from itself")

    def _check_beyond(self, claims: Sequence[tuple[int, Any]]) -> None:
        """No claim subtracts its own difference, which would leave 0."""
        for index, claim in claims:
            if claim.beyond is not None and (claim.beyond.arm, claim.beyond.base) == (claim.arm, claim.base):
                self._problem(("claim", index, "beyond"), "this is the pair of arms of the claim itself")

    def _check_own(self, config: StudyConfig, quick: QuickConfig | None, arms: Sequence[tuple[int, Any]]) -> None:
        """Nothing sets what the study itself sets in each run."""
        places: list[tuple[KeyPath, Mapping[str, Any]]] = [(("set",), config.set)]
        places += [(("arm", index, "set"), arm.set) for index, arm in arms]
        places += [] if quick is None else [(("quick", "set"), quick.set)]
        for path, table in places:
            for keys, _ in flattened(table):
                if ".".join(keys) in _OWN:
                    hint = "`seeds` and `name` are keys of a study, `--out` an option"
                    self._problem((*path, *keys), "a study sets this in each run", hint)

    def _check_places(self, path: KeyPath, table: Mapping[str, Any]) -> None:
        """What is set in all arms is of no use to those that have no such table or stage, but it is to some of them."""
        if self._places is None:
            return
        changes = dict(flattened(table))
        places, unread = self._places | places_added(changes), self._unread - self._places
        for keys in changes:
            if (place := place_of(keys)) in unread:
                self._problem((*path, *keys), f"no stage of any arm reads [{place}]", "leave it out")
            elif place not in places:
                kind = "stage" if place.startswith("stage.") else "table"
                what = f"no arm has a {kind} {short_text(place.removeprefix('stage.'))}"
                self._problem((*path, *keys), what, did_you_mean(place, list(places)))

    def _arm(self, index: int, arm: ArmConfig, config: StudyConfig, shared: Shared) -> Arm | None:
        try:
            file = find_recipe(arm.recipe or config.recipe, near=self._file.parent)
        except RobustokError as error:
            self._places = None
            path: KeyPath = ("recipe",) if arm.recipe is None else ("arm", index, "recipe")
            self._errors.append(RobustokError(error.what, where=self._source.location(path), hint=error.hint))
            return None
        try:
            read = read_arm(arm, file, self._source, shared, ("arm", index), self._fits)
        except RobustokError as error:
            self._places = None  # not all that arms have is known
            self._errors += error.problems
            return None
        places = places_in(read.recipe.source.table) | places_added(dict(flattened(arm.set)))
        try:
            unread = set(read.recipe.resolve(self._registry).unread_tables)  # type: ignore[arg-type]
        except RobustokError as error:
            self._places = None  # what its stages read is not known
            self._errors += error.problems
            return None
        self._places = None if self._places is None else self._places | places - unread
        self._unread |= unread
        for keys, _ in flattened(arm.set):
            if (table := place_of(keys)) in unread:
                what = f"no stage of this arm reads [{table}]"
                self._problem(("arm", index, "set", *keys), what, "leave it out, or run a stage that reads it")
        return read

    def _fits(self, source: Source) -> bool:
        try:
            Recipe(source=source, default_name="arm").resolve(self._registry)  # type: ignore[arg-type]
        except RobustokError:
            return False
        return True

    def _expression(self, path: KeyPath, text: str, labels: Sequence[str] = ()) -> Expression | None:
        """An expression, or None and a problem; `labels` are the names of [metrics], where one may stand instead."""
        try:
            return Expression.parse(text)
        except ValueError as error:
            hint = f"or the name of one in [metrics]; {did_you_mean(text, labels)}" if labels else None
            self._problem(path, str(error), hint)
            return None

    def _claim(self, index: int, claim: ClaimConfig, metrics: Mapping[str, Expression | None]) -> Claim | None:
        path: KeyPath = ("claim", index, "metric")
        expression = self._measured(path, claim.metric, metrics)
        where = self._source.location(path)
        return None if expression is None else Claim(config=claim, expression=expression, where=where)

    def _correlation(
        self, index: int, config: CorrelationConfig, metrics: Mapping[str, Expression | None]
    ) -> CorrelationClaim | None:
        names = {"metric": config.metric, "predicts": config.predicts}
        if config.better_than is not None:
            names["better_than"] = config.better_than
        read = {key: self._measured(("correlation", index, key), text, metrics) for key, text in names.items()}
        metric, predicts, better_than = (read.get(key) for key in ("metric", "predicts", "better_than"))
        if metric is None or predicts is None or None in read.values():
            return None
        for key in read.keys() - {"predicts"}:
            other = read[key]
            assert other is not None
            if shared := set(other.names) & set(predicts.names):
                what = f"it holds {min(shared)}, and so does what it should predict: that alone makes them correlate"
                self._problem(("correlation", index, key), what, "name another metric")
        if metric == better_than:
            self._problem(("correlation", index, "better_than"), "a metric is no rival of itself", "name another one")
        where = self._source.location(("correlation", index, "metric"))
        return CorrelationClaim(config=config, metric=metric, predicts=predicts, better_than=better_than, where=where)

    def _measured(self, path: KeyPath, text: str, metrics: Mapping[str, Expression | None]) -> Expression | None:
        """The metric of this label, or the expression itself."""
        return metrics[text] if text in metrics else self._expression(path, text, list(metrics))


def _references(
    config: StudyConfig, arms: Sequence[tuple[int, Any]], claims: Sequence[tuple[int, Any]]
) -> Iterator[tuple[KeyPath, str, str | None]]:
    """Where arms are named: the path, the name, and the arm that it must not be."""
    if config.base is not None:
        yield ("base",), config.base, None
    for index, claim in claims:
        yield ("claim", index, "arm"), claim.arm, None
        if claim.base is not None:
            yield ("claim", index, "base"), claim.base, claim.arm
        if claim.beyond is not None:
            yield ("claim", index, "beyond", "arm"), claim.beyond.arm, None
            yield ("claim", index, "beyond", "base"), claim.beyond.base, claim.beyond.arm
    for index, arm in arms:
        for artifact, place in arm.load.items():
            yield ("arm", index, "load", artifact), place.partition("@")[0], arm.name
