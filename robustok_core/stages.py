"""What a stage gets to work with: the recipe, its inputs, a place for what it makes, and the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs import define, field
from rich.console import Console
from torch import nn

from robustok_core.artifacts import RunFolder, append_line, drop_lines
from robustok_core.checkpoint import load_module
from robustok_core.config import Spec
from robustok_core.distributed import barrier
from robustok_core.draws import derive_seed, seeded
from robustok_core.errors import RobustokError
from robustok_core.files import new_folder, read_json, read_tensors, write_json, write_tensors
from robustok_core.interfaces import Dataset, Generator
from robustok_core.latents import LatentSpace
from robustok_core.recipe import ResolvedRecipe
from robustok_core.registry import Registry

if TYPE_CHECKING:
    from accelerate import Accelerator

COMPONENT_FILE = "component.json"
WEIGHTS_FILE = "model.safetensors"


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
        barrier()

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


def save_component(folder: Path, kind: str, table: Mapping[str, Any], module: nn.Module, **about: Any) -> None:
    """Writes a component as its recipe table and its weights, so that it can be built again anywhere."""
    if isinstance(module, Generator):
        about |= {"space": attrs.asdict(module.space), "num_classes": module.num_classes}
    write_json(folder / COMPONENT_FILE, {"kind": kind, "table": dict(table), **about})
    write_tensors(folder / WEIGHTS_FILE, module.state_dict())


def load_component(registry: Registry, folder: Path) -> nn.Module:
    """Builds a component that `save_component` wrote, in eval mode.

    Raises:
        RobustokError: where the folder holds none, or its weights do not fit.
    """
    if not (folder / COMPONENT_FILE).is_file():
        raise RobustokError("there is no component here", where=str(folder), hint="name an artifact's folder")
    about = read_json(folder / COMPONENT_FILE)
    args = (LatentSpace(**about["space"]), about["num_classes"]) if about["kind"] == "generator" else ()
    with torch.device("meta"):
        module = registry.build(about["kind"], about["table"], *args)
    weights = read_tensors(folder / WEIGHTS_FILE)
    module = module.to_empty(device="cpu")
    load_module(module, weights, str(folder))
    return module.eval()
