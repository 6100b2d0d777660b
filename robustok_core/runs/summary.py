"""What a run says: how it computes, and at its end the results, where everything lies, and what to try next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from robustok_core.runs.environment import shards_weights
from robustok_core.runs.precision import MEANING
from robustok_core.runs.results import RESULTS_FILE
from robustok_core.values.numbers import number_text
from robustok_core.values.terminal import print_table, say

if TYPE_CHECKING:
    from accelerate import Accelerator
    from rich.console import Console

    from robustok_core.recipe.recipe import ResolvedRecipe
    from robustok_core.runs.folder import RunFolder
    from robustok_core.values.result import Result

REPORT_FILE = "report.html"
_MOST_PICTURES = 6


def lines_at_start(recipe: ResolvedRecipe, precision: str | None, accelerator: Accelerator) -> Iterator[str]:
    """What was chosen for a run, and what of its recipe means nothing to it.

    Args:
        precision: what "auto" came to; None if nothing was "auto".
    """
    yield from unread_tables(recipe)
    if precision is not None:
        yield f"precision auto: {MEANING[precision]}"
    if (count := accelerator.num_processes) > 1:
        held = "trained weights are divided among them (FSDP)" if shards_weights() else "each has all weights (DDP)"
        yield f"{count} processes, on {accelerator.device.type}: {held}"


def unread_tables(recipe: ResolvedRecipe) -> Iterator[str]:
    """A line for each table of a recipe that no stage reads."""
    for name in recipe.unread_tables:
        yield f"{recipe.source.location((name,))}: no stage of this recipe reads [{name}]"


def print_results(console: Console, results: Mapping[str, Result]) -> None:
    """Prints each result's value and, if it depends on that, its number of images; details are in results.json."""
    rows = ([name, number_text(result.value, 6), _images(result)] for name, result in results.items())
    print_table(console, ["result", "value", "images"], rows)


def _images(result: Result) -> str:
    """ "200", or "200 vs 2,000" if these are real images."""
    if result.num_images is None:
        return ""
    return f"{result.num_images:,}" + (f" vs {result.num_reference:,}" if result.num_reference else "")


def print_end(
    console: Console | None,
    folder: RunFolder,
    results: Mapping[str, Result],
    left: Sequence[str],
    refused: Sequence[str],
) -> None:
    """Prints the results of a run, the files to look at, and commands to try.

    Args:
        console: None to print nothing. left: the stages that were not asked for and are not done.
        refused: why they cannot run.
    """
    if console is None:
        return
    say(console, "")
    print_results(console, results)
    say(console, "")
    if left:
        goes_on = "refuses:" if refused else "goes on"
        say(console, f"not run: {', '.join(left)}; `robustok run {folder.path}` {goes_on}")
        for problem in refused:
            say(console, f"  {problem}")
    places: list[tuple[str, Sequence[str]]] = [
        ("results", [str(folder.path / RESULTS_FILE)]),
        ("report", [str(file) for file in [folder.path / REPORT_FILE] if file.is_file()]),
        ("pictures", list(_pictures(folder))),
        ("try", list(_commands(folder))),
    ]
    width = max(len(title) for title, _ in places)
    for title, lines in places:
        for number, line in enumerate(lines):
            say(console, f"{'' if number else title:<{width}}  {line}")


def _made(folder: RunFolder) -> Iterator[tuple[str, Path]]:
    """The finished artifacts of the current recipe, by name, in the order of its stages."""
    record: Mapping[str, Any] = folder.record
    for stage, fingerprint in record["current"].items():
        entry = record["stages"].get(f"{stage}-{fingerprint}", {})
        if entry.get("state") == "done":
            yield from ((name, folder.artifact(name, fingerprint)) for name in entry.get("makes", []))


def _pictures(folder: RunFolder) -> Iterator[str]:
    files = [str(file) for _, artifact in _made(folder) for file in sorted(artifact.glob("*.png"))]
    yield from files[:_MOST_PICTURES]
    if len(files) > _MOST_PICTURES:
        yield f"and {len(files) - _MOST_PICTURES} more in {folder.path / 'artifacts'}"


def _commands(folder: RunFolder) -> Iterator[str]:
    """Commands that are installed and that have what they need."""
    made, run = {name for name, _ in _made(folder)} | set(folder.record.get("inputs", {})), quote(str(folder.path))
    installed = entry_points(group="robustok.commands").names
    for command, artifact, arguments in (
        ("sample", "generator", "--count 16 --out samples.png"),
        ("encode", "tokenizer", "IMAGES --out codes.npz"),
        ("view", "tokenizer", ""),
        ("compare", "", "OTHER_RUN"),
    ):
        if command in installed and (not artifact or artifact in made):
            yield f"robustok {command} {run} {arguments}".rstrip()
