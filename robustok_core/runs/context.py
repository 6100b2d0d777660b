"""What a stage gets to work with: the recipe, its inputs, a place for what it makes, and the log."""

from __future__ import annotations

from typing import Any
from rich.console import Console
from robustok_core.kinds.dataset import Dataset
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.recipe import ResolvedRecipe
from robustok_core.runs.folder import RunFolder
from robustok_core.values.spec import Spec
from robustok_core.runs.step_log import append_line
from contextlib import contextmanager
from attrs import define
from robustok_core.values.draws import derive_seed
from robustok_core.runs.step_log import drop_lines
from attrs import field
from robustok_core.runs.components import load_component
from robustok_core.runs.files import new_folder
from robustok_core.values.draws import seeded
import torch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator


@define(kw_only=True, eq=False)
class StageContext:
    """The world of one stage.

    Attributes:
        recipe: the resolved recipe. registry: the components. accelerator: processes and devices.
        stage: the stage's name. fingerprint: of its configuration and inputs.
        seed: of all its random numbers.
        folder: the run folder.
        inputs: folders of the artifacts that it reads, by name.
        console: where to write, None on processes that stay silent.
        built: components built so far, shared by all stages of the run.
    """

    recipe: ResolvedRecipe
    registry: Registry
    accelerator: Accelerator
    stage: str
    fingerprint: str = ""
    folder: RunFolder
    inputs: Mapping[str, Path] = field(factory=dict)
    console: Console | None = None
    built: dict[str, Any] = field(factory=dict)

    @property
    def seed(self) -> int:
        """The seed of this stage: a function of the run's seed and the stage's name."""
        return derive_seed(self.recipe.run.seed, self.stage)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    @property
    def checkpoints(self) -> Path:
        """The folder of this stage's checkpoints."""
        return self.folder.checkpoints(self.stage, self.fingerprint)

    @property
    def cache(self) -> Path:
        """A folder beside the runs for what several runs can use, named by content."""
        return self.folder.path.parent / ".cache"

    def spec(self, table: str) -> Spec | None:
        """The component that a top-level table describes, None where the recipe has no such table."""
        return self.recipe.tables.get(table)

    def dataset(self) -> Dataset:
        """The recipe's data set, opened once for all stages."""
        if "data" not in self.built:
            self.built["data"] = self.recipe.tables["data"].build()
        return self.built["data"]

    def build(self, table: str, *args: Any) -> Any:
        """Builds the component of a top-level table; its initial weights are the same on every process."""
        with seeded(self.recipe.run.seed, "init", table):
            return self.recipe.tables[table].build(*args)

    def sketch(self, table: str, *args: Any) -> Any:
        """The component of a top-level table on the meta device: shapes without memory."""
        with torch.device("meta"):
            return self.recipe.tables[table].build(*args)

    def load(self, artifact: str) -> Any:
        """A component that a stage made before, with its weights, in eval mode on this process's device."""
        return load_component(self.registry, self.inputs[artifact]).to(self.device)

    @contextmanager
    def making(self, artifact: str) -> Iterator[Path | None]:
        """A folder for an artifact, which appears when the block is done; None on all but the main process."""
        if self.accelerator.is_main_process:
            with new_folder(self.folder.artifact(artifact, self.fingerprint)) as aside:
                yield aside
        else:
            yield None
        self.accelerator.wait_for_everyone()

    def say(self, text: str) -> None:
        """Writes a line for the user, once."""
        if self.console is not None:
            self.console.print(text, highlight=False, soft_wrap=True)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line to metrics.jsonl and tells trackers and plugins (main process only)."""
        if not self.accelerator.is_main_process:
            return
        line = {"stage": self.stage, "fingerprint": self.fingerprint, "step": step, **values}
        append_line(self.folder.path / "metrics.jsonl", line)
        self.accelerator.log({f"{self.stage}/{name}": value for name, value in values.items()}, step=step)
        self.registry.hook.robustok_step_logged(
            folder=self.folder.path, stage=self.stage, step=step, values=dict(values)
        )

    def forget_log_after(self, step: int) -> None:
        """Drops lines that an interrupted run logged behind its last checkpoint: they come again."""
        if self.accelerator.is_main_process:
            drop_lines(self.folder.path / "metrics.jsonl", self.fingerprint, step)
