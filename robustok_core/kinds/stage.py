"""The steps of a run, and what a step may touch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from rich.console import Console

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder, Component
from robustok_core.kinds.dataset import Dataset
from robustok_core.kinds.promise import Promise
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec

if TYPE_CHECKING:
    from accelerate import Accelerator

PromiseT = TypeVar("PromiseT", bound=Promise)


class StageContext(ABC):
    """All that a stage may touch.

    Attributes:
        stage: the stage's name in the recipe. run_name: the run's.
        run_seed: the seed of the recipe. seed: of this stage's random numbers, from that and the stage's name.
        fingerprint: of the stage's configuration and inputs; "" while the recipe is checked.
        inputs: folders of the artifacts that it reads, by name; empty while the recipe is checked.
        checkpoints: a folder of its own for what an interrupted stage goes on from.
        cache: a folder beside the runs for what several runs can use; files in it are named by content.
        registry: builds components. accelerator: the processes.
        device: where this process computes.
        console: where progress is shown, None on processes that stay silent.
    """

    stage: str
    run_name: str
    run_seed: int
    seed: int
    fingerprint: str
    inputs: Mapping[str, Path]
    checkpoints: Path
    cache: Path
    registry: Builder
    accelerator: Accelerator
    console: Console | None
    device: torch.device

    @abstractmethod
    def spec(self, table: str) -> Spec | None:
        """The component that a top-level table describes, None where the recipe has no such table."""

    @abstractmethod
    def dataset(self) -> Dataset:
        """The data set of [data], opened once for all stages."""

    @abstractmethod
    def build(self, table: str, *args: Any) -> Any:
        """Builds the component of a top-level table; its initial weights are the same on every process."""

    @abstractmethod
    def sketch(self, table: str, *args: Any) -> Any:
        """The component of a top-level table on the meta device: shapes without memory."""

    @abstractmethod
    def promise(self, artifact: str, kind: type[PromiseT]) -> PromiseT:
        """What is known of an artifact that this stage needs.

        Args:
            artifact: its name, one of the stage's `needs`. kind: the sort of promise that the stage reads.

        Raises:
            RobustokError: who makes the artifact promises something else, or its files are not such an artifact.
        """

    @abstractmethod
    def load(self, artifact: str) -> Any:
        """A component that a stage made before, with its weights, in eval mode on this process's device."""

    @abstractmethod
    def making(self, artifact: str) -> AbstractContextManager[Path | None]:
        """A folder for an artifact, which appears when the block is done; None on all but the main process."""

    @abstractmethod
    def part(self, name: str) -> StageContext:
        """The context of one of several trainings in this stage, with checkpoints and log lines of its own."""

    @abstractmethod
    def location(self, *keys: str, table: str | None = None) -> str:
        """The file and line of an option of this stage, or of the top-level `table` (without keys: of the table)."""

    @abstractmethod
    def located(self, error: RobustokError, *keys: str, table: str | None = None) -> RobustokError:
        """The same error with the file and line of an option.

        Args:
            error: what is wrong. keys: lead to the option, of this stage or of the top-level `table`.
        """

    @abstractmethod
    def say(self, text: str) -> None:
        """Writes a line for the user, once."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line to metrics.jsonl and tells trackers and plugins (main process only)."""

    @abstractmethod
    def forget_log_after(self, step: int) -> None:
        """Drops lines that an interrupted run logged behind its last checkpoint: they come again."""


class Stage(Component, ABC):
    """One step of a run. Built as `Stage(config)`.

    Attributes:
        uses: top-level tables that it cannot do without ("data", "tokenizer", ...).
        may_use: tables that shape the result where the recipe has them ("perturbation").
        needs: artifacts it reads. makes: artifacts it leaves.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    may_use: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ()

    def check(self, context: StageContext) -> None:
        """Raises RobustokError where the parts do not fit; called for all stages before any runs."""

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """What each artifact of `makes` will be, by name; called after `check`, for all stages before any runs.

        An artifact that is left out is promised without anything being said of it.
        """
        return {}

    @abstractmethod
    def run(self, context: StageContext) -> Mapping[str, float | Result]:
        """Does the work and returns results by name."""
