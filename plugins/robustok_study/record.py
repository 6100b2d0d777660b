"""study.json: the results of a study, in its folder. `read_study` is how other commands read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_core.runs.conditions import Conditions
from robustok_core.runs.files import write_json
from robustok_core.runs.records import read_record

STUDY_FILE = "study.json"


@frozen(kw_only=True)
class ArmRecord:
    """An arm: what it sets, what it loads from other arms, and the fingerprint of its recipe without the seed."""

    name: str
    fingerprint: str
    changes: Mapping[str, Any] = field(factory=dict)
    load: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class RunOfStudy:
    """A run of a study.

    Attributes:
        arm, seed: whose. folder: its name in the study's folder. state: "done", "begun", "new" or "failed".
        seconds: of work in its stages; those that it took from another run, or study, count there.
        stages: the fingerprints of its stages, where they are known. problem: why it failed.
        results: all of a finished run, by "stage/name", as results.json has them. conditions: what they depend on.
        made_with: as of a study. taken_from: the study whose record has the results, where this one has no such run.
    """

    arm: str
    seed: int
    folder: str
    state: str
    seconds: float = 0.0
    stages: Mapping[str, str] = field(factory=dict)
    problem: str | None = None
    results: Mapping[str, Any] = field(factory=dict)
    conditions: Conditions | None = None
    made_with: list[dict[str, Any]] = field(factory=list)
    taken_from: str | None = None


@frozen(kw_only=True)
class Summary:
    """An arm's results over seeds. standard_error: of the mean; None for one seed. by_seed: the values."""

    mean: float
    standard_error: float | None
    by_seed: Mapping[str, float]


@frozen(kw_only=True)
class Difference:
    """A difference to another arm, paired by seed; or, without one, a metric itself.

    Attributes:
        base: the other arm. low, high: the 95 % interval of the mean, by Student's t; None for one seed.
        significant: whether the interval excludes `than`. seeds_needed: how many seeds would settle it, if mean and
            spread stay; None if it is settled, or more than 1,000 would be needed.
    """

    base: str | None
    mean: float
    standard_error: float | None
    low: float | None
    high: float | None
    significant: bool
    seeds_needed: int | None
    by_seed: Mapping[str, float]
    than: float = 0.0


@frozen(kw_only=True)
class MetricRecord:
    """A row of the table.

    Attributes:
        label: its name in the table. metric: what it is. higher_is_better: None if neither is better.
        num_images, num_reference: how many images it was measured with, where that matters.
        arms: by arm. differences: to the base arm, by arm.
        problem: why there are no differences; arms are left only where one rule scaled the metric to each codebook.
        left_out: why an arm has no value, by arm, where it ran the stage.
    """

    label: str
    metric: str
    higher_is_better: bool | None = None
    num_images: int | None = None
    num_reference: int | None = None
    arms: Mapping[str, Summary] = field(factory=dict)
    differences: Mapping[str, Difference] = field(factory=dict)
    problem: str | None = None
    left_out: Mapping[str, str] = field(factory=dict)

    @property
    def has_values(self) -> bool:
        """Whether there is something to show, be it without differences."""
        return self.problem is None or bool(self.arms)


@frozen(kw_only=True)
class ClaimRecord:
    """A claim and its verdict.

    Attributes:
        text, metric, arm, base, beyond, direction, than: as in the study's file. expression: what the metric is.
        verdict: "reproduced", "contradicted" or "undecided". reason: of the verdict.
        difference: what decided it; None if there are no results.
    """

    text: str
    metric: str
    expression: str
    arm: str
    base: str | None
    direction: str
    than: float
    verdict: str
    reason: str
    difference: Difference | None = None
    beyond: Mapping[str, str] | None = None


@frozen(kw_only=True)
class CorrelationRecord:
    """A claim on a correlation over arms, and its verdict.

    Attributes:
        text, metric, predicts, better_than, coefficient: as in the study's file.
        verdict, reason: as of a claim.
        value: of the metric; None if there are too few results. rival: that of `better_than`.
        low, high: the 95 % bootstrap interval, over arms, of the value, or of its lead over the rival's.
        points: by arm, the means over seeds: of the metric, of what it predicts, and of the rival.
    """

    text: str
    metric: str
    predicts: str
    better_than: str | None
    coefficient: str
    verdict: str
    reason: str
    value: float | None = None
    rival: float | None = None
    low: float | None = None
    high: float | None = None
    points: Mapping[str, list[float]] = field(factory=dict)


@frozen(kw_only=True)
class StudyRecord:
    """The content of study.json.

    Attributes:
        name, file, quick: of the study. recipe: that the arms change. base: the arm that others are compared with.
        fingerprint: of all arms' recipes and seeds: equal for two studies of the same runs. written: when.
        made_with: the versions and machines that made the results, each once.
    """

    name: str
    file: str
    quick: bool
    recipe: str
    seeds: list[int]
    base: str
    fingerprint: str
    written: str
    arms: list[ArmRecord]
    runs: list[RunOfStudy]
    metrics: list[MetricRecord]
    claims: list[ClaimRecord]
    correlations: list[CorrelationRecord] = field(factory=list)
    made_with: list[dict[str, Any]] = field(factory=list)

    @property
    def identity(self) -> str:
        """Its name with its fingerprint, equal for two records of the same runs."""
        return f"{self.name} ({self.fingerprint})"

    @property
    def missing(self) -> list[str]:
        """The runs whose results are not there."""
        return [run.folder for run in self.runs if run.state != "done"]

    @property
    def taken(self) -> Mapping[str, list[RunOfStudy]]:
        """The runs whose results are from the records of other studies, by study."""
        found: dict[str, list[RunOfStudy]] = {}
        for run in self.runs:
            if run.taken_from not in (None, self.identity):  # of the study itself: a part that ran elsewhere
                found.setdefault(run.taken_from, []).append(run)
        return found


def write_study(folder: Path, record: StudyRecord) -> None:
    """Writes study.json."""
    write_json(folder / STUDY_FILE, attrs.asdict(record))


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study's results."""
    return (folder / STUDY_FILE).is_file()


def read_study(folder: Path) -> StudyRecord:
    """The results of a study.

    Raises:
        RobustokError: if the folder holds none, or the file is damaged.
    """
    if not is_study(folder):
        raise RobustokError("this is not the folder of a study", where=str(folder), hint="`robustok study` makes one")
    return read_record(StudyRecord, folder / STUDY_FILE)
