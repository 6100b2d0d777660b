"""How commands open the generator of a run: with `--device` and, for its sampler, `--set KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.source import parse_override, read_source
from robustok_core.runs.devices import device_called
from robustok_core.runs.history import RECIPE_FILE
from robustok_core.runs.run_record import is_run, read_run
from robustok_core.values.guidance import Guidance
from robustok_core.values.ignored import as_it_was_made
from robustok_toolkit.generating import named_sampler_options
from robustok_toolkit.reported_run import ReportedRun
from robustok_toolkit.trained_generator import TrainedGenerator, generator_of


@frozen(kw_only=True)
class OpenedGenerator:
    """A run's generator with its tokenizer.

    Attributes:
        sampling: an instance of its `Sampling`. of_recipe: which of its options the run's recipe sets.
    """

    trained: TrainedGenerator
    sampling: Any
    of_recipe: Mapping[str, Any] = field(factory=dict)

    def notes_beside(self, run: ReportedRun) -> Iterator[str]:
        """For the user: options of the sampler that the recipe sets, and images that are not those of the run."""
        if self.of_recipe:
            options = ", ".join(f"{name} = {value}" for name, value in self.of_recipe.items())
            yield f"note: the sampler has the recipe's {options}; --set changes them"
        before = len(run.missing)
        run.data  # noqa: B018  # it looks at them
        yield from (f"note: {line}" for line in run.missing[before:])


def open_generator(
    run: Path, *, device: str | None, changes: Sequence[str], as_for: Literal["samples", "pairs"] | None = None
) -> OpenedGenerator:
    """Loads a generator.

    Args:
        run: the folder of a run or of one of its artifacts.
        device: as named by the user; None is the GPU if there is one.
        changes: of the sampler's options, KEY=VALUE.
        as_for: what the run's recipe sets of the sampler's options counts where `changes` say nothing: those of its
            samples, or of its pairs for post-training. None: the defaults count.

    Raises:
        RobustokError: the run has no generator, or there is no such device or option.
    """
    torch_device = device_called(device, where="--device")
    _require_generator(run)
    trained = generator_of(run, device=torch_device)
    recipe = read_source(run / RECIPE_FILE).table if as_for is not None and is_run(run) else {}
    given = dict(parse_override(change) for change in changes)
    of_recipe = sampler_options_of(recipe, type(trained.generator), keeping=as_for == "pairs")
    of_recipe = {name: value for name, value in of_recipe.items() if name not in given}
    sampling = named_sampler_options(type(trained.generator), {**of_recipe, **given}, "--set ")
    return OpenedGenerator(trained=trained, sampling=sampling, of_recipe=of_recipe)


def stage_options(recipe: Mapping[str, Any], *uses: str) -> Mapping[str, Any]:
    """The table of a recipe's last stage that uses one of these, the first of them first; empty if none does."""
    stages = [table for table in recipe.get("stage", []) if isinstance(table, Mapping)]
    tables = ([table for table in stages if table.get("use") == use] for use in uses)
    return next((found[-1] for found in tables if found), {})


def sampler_options_of(
    recipe: Mapping[str, Any], generator: type[Generator], *, keeping: bool = False
) -> Mapping[str, Any]:
    """The options of a generator's sampler in a recipe's table, with which it samples, that are not their defaults.

    Args:
        keeping: those with which pairs for post-training are made, if the recipe makes any.
    """
    of_pairs = recipe.get("post_trainer", {}).get("sampling") if keeping else None
    options = of_pairs or stage_options(recipe, "sample", "compare_decoders").get("sampling", {})
    made, default = named_sampler_options(generator, options, "sampling."), generator.Sampling()
    return {name: value for name, value in options.items() if getattr(made, name) != getattr(default, name)}


def guidance_of(recipe: Mapping[str, Any], *, keeping: bool = False) -> Guidance:
    """The guidance in a recipe's table, with which it samples; none if it says nothing.

    Args:
        keeping: that with which pairs for post-training are made.

    Raises:
        RobustokError: there is no such guidance.
    """
    owner = recipe.get("post_trainer", {}) if keeping else stage_options(recipe, "sample", "compare_decoders")
    try:
        with as_it_was_made():  # earlier versions took options without effect
            return Guidance(**owner.get("guidance", {}))
    except (TypeError, ValueError) as error:
        raise RobustokError(f"its recipe's guidance cannot be used: {error}", where=RECIPE_FILE) from error


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
