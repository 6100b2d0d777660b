"""Runs that are repetitions of each other, as one arm of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from robustok_core.errors import RobustokError
from robustok_core.runs.history import RECIPE_FILE, changes_beyond_seed
from robustok_toolkit.reported_run import ReportedRun


@define(kw_only=True)
class Arm:
    """Runs whose recipes differ in nothing but their seeds and names.

    Attributes:
        by_seed: the runs. A run whose seed is not known is alone in its arm, under a number that no seed has.
    """

    name: str
    by_seed: dict[int, ReportedRun] = field(factory=dict)

    @property
    def runs(self) -> list[ReportedRun]:
        return list(self.by_seed.values())

    def values(self, result: str) -> dict[int, float]:
        """A result of the runs that have it, by seed."""
        return {seed: run.results[result].value for seed, run in self.by_seed.items() if result in run.results}


def arms_of(runs: Sequence[ReportedRun]) -> list[Arm]:
    """The runs by arm, in the order of their first runs; one seed twice is no repetition, but another arm.

    An arm is called like its first run.
    """
    arms: list[Arm] = []
    for number, run in enumerate(runs):
        seed = run.record.get("seed")
        arm = next((arm for arm in arms if isinstance(seed, int) and _belongs(run, seed, arm)), None)
        if arm is None:
            arm = Arm(name=run.name)
            arms.append(arm)
        arm.by_seed[seed if isinstance(seed, int) else -1 - number] = run
    return arms


def _belongs(run: ReportedRun, seed: int, arm: Arm) -> bool:
    if seed in arm.by_seed or min(arm.by_seed) < 0:
        return False
    try:
        return not changes_beyond_seed(recipe_text(arm.runs[0]), recipe_text(run))
    except RobustokError:  # what its recipe is, is not known
        return False


def recipe_text(run: ReportedRun) -> str:
    """The recipe of a run, as it stands in its folder.

    Raises:
        RobustokError: if it cannot be read.
    """
    try:
        return (run.folder / RECIPE_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RobustokError(f"the recipe cannot be read: {error}", where=str(run.folder / RECIPE_FILE)) from error
