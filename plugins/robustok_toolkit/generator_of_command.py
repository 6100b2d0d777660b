"""How commands open the generator of a run: with `--device` and, for its sampler, `--set KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.recipe.source import parse_override
from robustok_core.runs.devices import device_called
from robustok_core.runs.run_record import is_run, read_run
from robustok_toolkit.generating import named_sampler_options
from robustok_toolkit.trained_generator import TrainedGenerator, generator_of


@frozen(kw_only=True)
class OpenedGenerator:
    """A run's generator with its tokenizer, and an instance of its `Sampling`."""

    trained: TrainedGenerator
    sampling: Any


def open_generator(run: Path, *, device: str | None, changes: Sequence[str]) -> OpenedGenerator:
    """Loads a generator.

    Args:
        run: the folder of a run or of one of its artifacts.
        device: as named by the user; None is the GPU if there is one.
        changes: of the sampler's options, KEY=VALUE.

    Raises:
        RobustokError: the run has no generator, or there is no such device or option.
    """
    torch_device = device_called(device, where="--device")
    _require_generator(run)
    trained = generator_of(run, device=torch_device)
    options = dict(parse_override(change) for change in changes)
    return OpenedGenerator(trained=trained, sampling=named_sampler_options(type(trained.generator), options, "--set "))


def _require_generator(run: Path) -> None:
    """Raises RobustokError if a run's recipe trains a tokenizer only."""
    record = read_run(run) if is_run(run) else {}
    made = {name for entry in record.get("stages", {}).values() for name in entry.get("makes", [])}
    if "tokenizer" in made and "generator" not in made | record.get("inputs", {}).keys():
        hint = (
            f"`robustok encode {run}` and `decode` use its tokenizer; a generator is trained by a recipe with the "
            "stage train_generator, as in `robustok run main_train`"
        )
        raise RobustokError("this run trained a tokenizer and no generator", where=str(run), hint=hint)
