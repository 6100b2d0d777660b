"""A run's folder as its report reads it, whatever state it is in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset
from robustok_core.recipe.recipe import Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.source import read_source, stage_name
from robustok_core.runs.history import RECIPE_FILE
from robustok_core.runs.inputs import find_input
from robustok_core.runs.intact import check_artifact
from robustok_core.runs.results import RESULTS_FILE, read_results, stage_results
from robustok_core.runs.run_record import is_run, read_copy, read_run
from robustok_core.runs.step_log import values_of
from robustok_core.values.result import Result
from robustok_toolkit.trained import load_trained
from robustok_toolkit.trained_tokenizer import TrainedTokenizer

_LOG = "metrics.jsonl"


@frozen(kw_only=True)
class ReportedStage:
    """A stage of the recipe: its name, its component, and its entry in run.json, empty if it never began."""

    name: str
    use: str
    fingerprint: str
    entry: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether it is finished."""
        return self.entry.get("state") == "done"

    @property
    def taken_from(self) -> str | None:
        """The folder of the run that made it, if that was another one."""
        return self.entry.get("taken_from")

    @property
    def seconds(self) -> float:
        """Of work in this run."""
        return 0.0 if self.taken_from else float(self.entry.get("seconds", 0.0))


class ReportedRun:
    """A run's folder. What cannot be read is left out and named in `missing`; what a section asks for raises an error.

    Attributes:
        folder: the run's folder. registry: builds its components. device: where they run.
        name: of the folder, or what a comparison calls it. missing: what is not there or damaged, a line each.
        record: run.json. table: the recipe. stages: those of the recipe, in order.
        results: by "stage/metric", of the stages that are done. log: the lines of metrics.jsonl of these stages.
    """

    def __init__(self, folder: Path, registry: Registry, device: torch.device) -> None:
        if not is_run(folder):
            raise RobustokError("this is not a run folder", where=str(folder), hint="a run's folder is runs/NAME")
        self.folder, self.registry, self.device = folder, registry, device
        self.name = folder.resolve().name
        self.missing: list[str] = []
        self._intact: set[Path] = set()
        self._tokenizers: dict[Path, TrainedTokenizer] = {}
        self.record = self._record()
        self.table = self._table()
        self.stages = self._stages()
        self.results = self._results()
        self.log = self._log()
        self.missing += [f"the stage {stage.name}: {_state(stage)}" for stage in self.stages if not stage.done]

    def _record(self) -> Mapping[str, Any]:
        try:
            return read_run(self.folder)
        except RobustokError as error:
            self.missing.append(str(error))
            return read_copy(self.folder) or {"stages": {}, "current": {}}

    def _table(self) -> Mapping[str, Any]:
        try:
            return read_source(self.folder / RECIPE_FILE).table
        except RobustokError as error:
            self.missing.append(str(error))
            return {}

    def _stages(self) -> list[ReportedStage]:
        current = self.record.get("current", {})
        tables = self.table.get("stage")
        uses = {stage_name(table): str(table.get("use")) for table in tables} if isinstance(tables, list) else {}
        return [
            ReportedStage(
                name=name,
                use=uses.get(name, name),
                fingerprint=current.get(name, ""),
                entry=self.record["stages"].get(f"{name}-{current.get(name)}", {}),
            )
            for name in (uses or current)
        ]

    def _results(self) -> dict[str, Result]:
        try:
            if (self.folder / RESULTS_FILE).is_file():
                return read_results(self.folder)
            self.missing.append(f"{RESULTS_FILE}: the run has not ended; the results are those of its finished stages")
        except RobustokError as error:
            self.missing.append(str(error))
        found: dict[str, Result] = {}
        for stage in self.stages:
            if stage.done:
                results = stage_results(stage.entry, self.folder)
                found |= {f"{stage.name}/{name}": result for name, result in results.items()}
        return found

    def _log(self) -> list[dict[str, Any]]:
        file = self.folder / _LOG
        try:
            lines = file.read_bytes().splitlines() if file.is_file() else []
        except OSError as error:
            self.missing.append(f"{_LOG}: {error.strerror}")
            return []
        values = [values_of(line) for line in lines]
        if damaged := values.count(None):
            self.missing.append(f"{_LOG}: {damaged} damaged line{'s' if damaged > 1 else ''}")
        current = {stage.fingerprint for stage in self.stages}
        return [line for line in values if line and str(line.get("fingerprint")).partition("-")[0] in current]

    @cached_property
    def recipe(self) -> ResolvedRecipe:
        """The recipe, checked by this version of robustok.

        Raises:
            RobustokError: if it is damaged, or has what this version or its plugins do not know.
        """
        return Recipe.load(self.folder / RECIPE_FILE).resolve(self.registry)

    @cached_property
    def data(self) -> Dataset:
        """The data set.

        Raises:
            RobustokError: if the recipe names none, or it is not there any more.
        """
        if "data" not in self.table:
            raise RobustokError("its recipe has no table [data]", where=str(self.folder))
        dataset: Dataset = self.registry.build("dataset", self.table["data"])
        recorded = self.record.get("data") or {}
        for name, split in (("train", dataset.train), ("validation", dataset.validation)):
            if recorded.get(name, split.fingerprint) != split.fingerprint:
                images = "training" if name == "train" else "held-out"
                self.missing.append(f"the {images} images of the run: the data set has others now, which are used")
        return dataset

    def artifacts(self, name: str) -> list[Path]:
        """The folders of all artifacts of this name, oldest first: that of [load], and those of finished stages.

        Raises:
            RobustokError: if one is damaged, or [load] named one that is not there any more.
        """
        folders = self._loaded(name) + self._made(name)
        for folder in folders:
            self._check(folder)
        return folders

    def artifact(self, name: str) -> Path:
        """The last artifact of this name; others may be damaged, or not there any more.

        Raises:
            RobustokError: if there is none, or it is damaged.
        """
        if not (found := self._made(name) or self._loaded(name)):
            raise RobustokError(f"no finished stage of this run made {name!r}", where=str(self.folder))
        self._check(found[-1])
        return found[-1]

    def _loaded(self, name: str) -> list[Path]:
        return [find_input(self.folder, dict(self.record), name)] if name in self.record.get("inputs", {}) else []

    def _made(self, name: str) -> list[Path]:
        made = [stage for stage in self.stages if stage.done and name in stage.entry.get("makes", [])]
        return [self.folder / "artifacts" / f"{name}-{stage.fingerprint}" for stage in made]

    def _check(self, folder: Path) -> None:
        if folder not in self._intact:  # once: it reads every file
            check_artifact(folder)
            self._intact.add(folder)

    @cached_property
    def tokenizers(self) -> list[TrainedTokenizer]:
        """The tokenizers of the run, oldest first: that of main training, then the post-trained one, if there is one.

        Raises:
            RobustokError: if there is none, or one is damaged.
        """
        if not (places := self.artifacts("tokenizer")):
            raise RobustokError("no finished stage of this run made a tokenizer", where=str(self.folder))
        return [self._tokenizer(place) for place in places]

    @cached_property
    def tokenizer(self) -> TrainedTokenizer:
        """The tokenizer that the run ended with; earlier ones may be damaged, or not there any more.

        Raises:
            RobustokError: if there is none, or it is damaged.
        """
        return self._tokenizer(self.artifact("tokenizer"))

    def _tokenizer(self, place: Path) -> TrainedTokenizer:
        if place not in self._tokenizers:
            trained = load_trained(self.registry, place, kind="tokenizer", device=self.device, importer=None)
            self._tokenizers[place] = TrainedTokenizer(trained, self.registry)
        return self._tokenizers[place]


def _state(stage: ReportedStage) -> str:
    return {"": "not begun", "new": "not begun"}.get(stage.entry.get("state", ""), stage.entry.get("state", ""))
