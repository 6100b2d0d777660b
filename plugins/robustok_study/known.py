"""Runs whose results are known from the record of a study: to compare with them, nobody needs to run them again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.conditions import Conditions
from robustok_core.runs.records import read_record
from robustok_core.runs.results import results_of
from robustok_core.runs.reuse import runs_in
from robustok_core.values.result import Result
from robustok_study.record import STUDY_FILE, ArmRecord, RunOfStudy, StudyRecord, is_study


@frozen(kw_only=True, eq=False)
class KnownRun:
    """What a study's record says of a finished run.

    Attributes:
        study: whose record, with its fingerprint, as it is printed.
        results, conditions, made_with, seconds: as of `RunOfStudy`.
    """

    study: str
    seconds: float
    results: Mapping[str, Result]
    conditions: Conditions
    made_with: Sequence[Mapping[str, Any]]


@frozen(kw_only=True, eq=False)
class Reused:
    """What `--reuse` names.

    Attributes:
        folders: runs, and folders that hold runs, whose finished stages are taken.
        runs: the known runs of studies' records, by the fingerprints of their stages.
        records: these records, each with those of its runs whose results count, by the run's name.
    """

    folders: Sequence[Path] = ()
    runs: Mapping[frozenset[tuple[str, str]], KnownRun] = field(factory=dict)
    records: Sequence[tuple[StudyRecord, Mapping[str, RunOfStudy]]] = ()

    def known(self, stages: Mapping[str, str], names: Collection[str]) -> KnownRun | None:
        """The known run of these stages (name to fingerprint) that has all results of these names."""
        found = self.runs.get(frozenset(stages.items()))
        return found if found is not None and all(name in found.results for name in names) else None

    def loading(
        self, arm: ArmRecord, run: str, needs: Mapping[str, Mapping[str, str]], names: Collection[str]
    ) -> tuple[Mapping[str, str], KnownRun] | None:
        """The stages of a known run that loads from others, and the run, where its record has these others, too.

        The fingerprints of such a run come from the content of what it loads, which is not here: it is known by its
        arm's recipe, and by the fingerprints of the runs that made this.

        Args:
            arm, run: whose. needs: the stages of the runs that it loads from, by name. names: as of `known`.
        """
        for record, runs in self.records:
            same = any(
                (one.name, one.fingerprint, one.load) == (arm.name, arm.fingerprint, arm.load) for one in record.arms
            )
            made = all(need in runs and runs[need].stages == stages for need, stages in needs.items())
            found = runs.get(run)
            if same and made and found is not None and found.stages and all(name in found.results for name in names):
                return found.stages, _known(found, record)
        return None


NOTHING = Reused()
_PLACES = "name a run, a folder of runs, or a study's study.json"


def reused(places: Sequence[Path], out: Path) -> Reused:
    """Reads what `--reuse` names, and which runs the study's own record took from another one's before.

    Args:
        places: folders, and files like study.json. out: the study's folder.

    Raises:
        RobustokError: if a file is no study's record, or none of its runs holds results.
    """
    for place in places:
        if not place.exists():
            raise RobustokError("there is no such file or folder", where=f"--reuse {place}", hint=_PLACES)
    runs: dict[frozenset[tuple[str, str]], KnownRun] = {}
    records = []
    for record, taken_only in _records(places, out):
        counted = [run for run in record.runs if run.results and not (taken_only and run.taken_from is None)]
        records.append((record, {run.folder: run for run in counted}))
        for run in counted:
            runs.setdefault(frozenset(run.stages.items()), _known(run, record))
    folders = [place for place in places if not place.is_file()]
    folders = [place for place in folders if not is_study(place) or runs_in(place)]
    return Reused(folders=folders, runs=runs, records=records)


def _records(places: Sequence[Path], out: Path) -> Iterator[tuple[StudyRecord, bool]]:
    """The records in these places, and whether only what they took from others counts."""
    for place in places:
        if place.is_file():
            yield _read(place), False
        elif is_study(place) and not runs_in(place):  # then its record is all that it has
            yield _read(place / STUDY_FILE), False
    for folder in (*(place for place in places if runs_in(place)), out):
        if is_study(folder):
            try:
                yield read_record(StudyRecord, folder / STUDY_FILE), folder == out
            except RunError:  # its runs may be whole
                continue


def _read(file: Path) -> StudyRecord:
    try:
        record = read_record(StudyRecord, file)
    except RunError as error:
        raise RobustokError(f"this is no record of a study: {error.what}", where=str(file), hint=_PLACES) from error
    if not any(run.results for run in record.runs):
        what = "no run in this record holds results: none is finished, or an earlier version of robustok wrote it"
        raise RobustokError(what, where=str(file), hint=_PLACES)
    return record


def _known(run: RunOfStudy, record: StudyRecord) -> KnownRun:
    return KnownRun(
        study=run.taken_from or record.identity,
        seconds=run.seconds,
        results=results_of(run.results),
        conditions=run.conditions or Conditions(),
        made_with=run.made_with,
    )
