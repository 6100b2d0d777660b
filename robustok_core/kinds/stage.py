"""The stages of a run, and the context that a stage works in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from rich.console import Console

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder, Component
from robustok_core.kinds.cost import Cost
from robustok_core.kinds.dataset import Dataset
from robustok_core.kinds.promise import Promise, PromiseT
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec
from robustok_core.values.speed import Speed

if TYPE_CHECKING:
    from accelerate import Accelerator


#: Where a training keeps what it needs to replay a step that became not finite, in the folder of its checkpoints.
NOT_FINITE_FILE = "not_finite.json"


class StageContext(ABC):
    """Everything that a stage may use.

    A stage is held to what its class declares, because its fingerprint covers nothing else: a table that is not in
    `uses` or `may_use`, or an artifact that is not in `needs` or `makes`, is refused with a `BrokenPromise`.

    Attributes:
        stage: the stage's name in the recipe. run_name: the run's name.
        run_seed: the recipe's seed. seed: the seed of this stage, derived from `run_seed` and the stage's name.
        fingerprint: of the stage's configuration and inputs; "" while the recipe is checked.
        inputs: folders of the artifacts that the stage reads, by name; empty while the recipe is checked.
        checkpoints: a folder for what an interrupted stage needs to resume.
        manifests: whether everything in `checkpoints` was written with a manifest (`robustok_core.runs.manifest`), so
            that a missing one is damage; False where an earlier version wrote there.
        cache: a folder beside the runs, shared by them; its files are named by content.
        registry: builds components. accelerator: the processes.
        device: the device of this process.
        console: shows progress; None on silent processes.
        processes: how many there are, or will be in the run that is planned.
        divides_weights: whether trained weights are divided among them, or will be; never on one process.
        speed: how fast trainings compute, where a stage does not say otherwise.
        replay: whether a training looks again into the step that became not finite, instead of going on.
    """

    stage: str
    run_name: str
    run_seed: int
    seed: int
    fingerprint: str
    inputs: Mapping[str, Path]
    checkpoints: Path
    manifests: bool
    cache: Path
    registry: Builder
    accelerator: Accelerator
    console: Console | None
    device: torch.device
    processes: int
    divides_weights: bool
    speed: Speed
    replay: bool

    @abstractmethod
    def has(self, table: str) -> bool:
        """Whether the recipe has a top-level table ("perturbation")."""

    @abstractmethod
    def spec(self, table: str) -> Spec:
        """The component that a top-level table describes.

        Raises:
            RobustokError: if the recipe has no such table.
        """

    @abstractmethod
    def dataset(self) -> Dataset:
        """The data set described by [data], opened once and shared by all stages."""

    @abstractmethod
    def build(self, table: str, *args: Any) -> Any:
        """Builds the component that a top-level table describes, with the same initial weights on every process."""

    @abstractmethod
    def sketch(self, table: str, *args: Any) -> Any:
        """Builds the component that a top-level table describes on the meta device: shapes without memory."""

    @abstractmethod
    def promise(self, artifact: str, kind: type[PromiseT]) -> PromiseT:
        """What is known about an artifact that this stage needs. For `check` and `plan` only.

        Args:
            artifact: its name, one of the stage's `needs`. kind: the class of promise that the stage reads.

        Raises:
            RobustokError: if the artifact is promised as another class, its files are not such an artifact, it is not
                one of `needs`, or the stage is running already.
        """

    @abstractmethod
    def load(self, artifact: str) -> Any:
        """Loads a component that an earlier stage made, with its weights, in eval mode on this process's device."""

    @abstractmethod
    def making(self, artifact: str) -> AbstractContextManager[Path | None]:
        """Gives a folder for an artifact, which appears when the block ends; None except on the main process."""

    @abstractmethod
    def discard_checkpoints(self) -> None:
        """Removes this stage's checkpoints once the stage is recorded as done, so that a kill before loses no work."""

    @abstractmethod
    def part(self, name: str) -> StageContext:
        """The context of one of several trainings in this stage, with checkpoints and log lines of its own."""

    @abstractmethod
    def may_be_absent(self, what: str) -> bool:
        """Whether a check does without something that is not on this machine; it is then said that it was not checked.

        Args:
            what: the file or folder, for that sentence.
        """

    @abstractmethod
    def location(self, *keys: str, table: str | None = None) -> str:
        """The file and line of an option of this stage or of the top-level `table`; without keys, of the table."""

    @abstractmethod
    def located(self, error: RobustokError, *keys: str, table: str | None = None) -> RobustokError:
        """The same error, located at the file and line of an option.

        Args:
            error: what is wrong. keys: the path of the option in this stage, or in the top-level `table`.
        """

    @abstractmethod
    def say(self, text: str) -> None:
        """Prints a line for the user, on the main process only."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line to metrics.jsonl and notifies trackers and plugins (main process only)."""

    @abstractmethod
    def forget_log_after(self, step: int) -> None:
        """Drops the lines that an interrupted run logged after its last checkpoint; they are logged again."""


class Stage(Component, ABC):
    """One stage of a run. Built as `Stage(config)`.

    Attributes:
        uses: top-level tables that it requires ("data", "tokenizer", ...).
        may_use: optional tables that affect the result ("perturbation").
        needs: artifacts it reads. makes: artifacts it writes.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    may_use: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ()

    def check(self, context: StageContext) -> None:
        """Raises RobustokError if the components do not fit together; called for all stages before any runs."""

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """A promise for each artifact of `makes`, by name; called after `check`, for all stages before any runs.

        An artifact left out gets an empty `Promise`.
        """
        return {}

    def result_names(self) -> Sequence[str] | None:
        """The names of its results; None if they are not known before it runs. A study checks its metrics by them."""
        return None

    def cost(self, context: StageContext) -> Cost | None:
        """What it will take, for `robustok plan`; None if that is not known.

        It is called like `plan`, and must take neither memory nor time: build components with `context.sketch`, and
        measure a step with `robustok_training.costs`.
        """
        return None

    @abstractmethod
    def run(self, context: StageContext) -> Mapping[str, float | Result]:
        """Does the work and returns results by name."""


def tables_of(kind: type[Stage]) -> tuple[str, ...]:
    """The tables that a stage reads, where the recipe has them."""
    return (*kind.uses, *kind.may_use)
