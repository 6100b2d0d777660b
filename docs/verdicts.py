"""Writes what studies found into docs/results.md, from the records in docs/studies/.

`python docs/verdicts.py runs/perturbation runs/claims` first copies the records of studies there: of those that are
not finished to docs/studies/begun/, from where `robustok study NAME --reuse` goes on.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from robustok_core.recipe.registry import load_registry
from robustok_core.recipe.source import bundled_studies
from robustok_core.runs.records import read_record
from robustok_core.values.numbers import duration_text, number_text
from robustok_study.file_tables import ClaimConfig, CorrelationConfig
from robustok_study.record import ArmRecord, MetricRecord, StudyRecord, read_study
from robustok_study.results import fingerprint_of_study
from robustok_study.spec import read_study_file
from robustok_study.tables import changes_text, difference_text, made_with_text, mean_text, metric_name
from robustok_study.verdicts import signed

DOCS = Path(__file__).parent
RECORDS, PAGE = DOCS / "studies", DOCS / "results.md"
_MOST_COLUMNS = 5  # with more arms than that, arms are rows
_BEGIN, _END = "<!-- by docs/verdicts.py -->\n", "<!-- end of docs/verdicts.py -->\n"


def keep(folder: Path) -> None:
    """Copies a study's record, with the name of its bundled file instead of a path.

    Raises:
        ValueError: it is of no bundled study, none of its runs is finished, or a record that is kept has results of
            runs that this one lacks.
    """
    record = read_study(folder)
    nothing = bool(record.runs) and len(record.missing) == len(record.runs)
    if record.quick or nothing or f"study/{record.name}" not in bundled_studies():
        raise ValueError(f"{folder} is no bundled study with results")
    if changed := different(record):
        raise ValueError(f"{folder}: the study has changed since: {', '.join(changed)}")
    record = attrs.evolve(record, file=f"recipes/study/{record.name}.toml")
    begun = RECORDS / "begun" / f"{record.name}.json"
    file = begun if record.missing else RECORDS / begun.name
    for before in (begun, RECORDS / begun.name):
        if before.is_file() and (lost := _lacks(record, read_record(StudyRecord, before))):
            what = f"{before} has results that this record lacks, of {', '.join(lost)}"
            raise ValueError(f"{folder}: {what}; take them with --reuse {before}, or remove that file first")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(attrs.asdict(record), indent=1, ensure_ascii=False) + "\n")
    if file != begun:
        begun.unlink(missing_ok=True)


def _lacks(record: StudyRecord, before: StudyRecord) -> list[str]:
    """The runs of which only the earlier record has results."""
    known = {run.folder for run in record.runs if run.results}
    return [run.folder for run in before.runs if run.results and run.folder not in known]


def different(record: StudyRecord) -> list[str]:
    """What a record has otherwise than the bundled study of its name."""
    study = read_study_file(record.name, load_registry())
    pairs = {
        "arms or seeds": (record.fingerprint, fingerprint_of_study(study)),
        "metrics": (
            {one.label: one.metric for one in record.metrics},
            {label: str(metric) for label, metric in study.metrics.items()},
        ),
        "claims": (
            [_of(one, ClaimConfig) for one in record.claims],
            [attrs.asdict(claim.config) for claim in study.claims],
        ),
        "correlations": (
            [_of(one, CorrelationConfig) for one in record.correlations],
            [attrs.asdict(claim.config) for claim in study.correlations],
        ),
    }
    return [what for what, (one, other) in pairs.items() if one != other]


def _of(record: Any, config: type) -> dict[str, Any]:
    """What a record repeats of a claim as it stands in the study's file."""
    return {option.name: getattr(record, option.name) for option in attrs.fields(config)}


def records() -> list[StudyRecord]:
    """All that are kept, by name."""
    return [read_record(StudyRecord, file) for file in sorted(RECORDS.glob("*.json"))]


def written(found: Sequence[StudyRecord]) -> str:
    """The part of the page between its marks."""
    return "\n".join([*_verdicts(found), *(line for record in found for line in _numbers(record))]) + "\n"


def _verdicts(found: Sequence[StudyRecord]) -> Iterator[str]:
    yield "| claim | verdict | found | study |"
    yield "|---|---|---|---|"
    for record in found:
        for claim in record.claims:
            number = "–"
            if claim.difference is not None:
                than = f", claimed {claim.direction} than {number_text(claim.than, 3)}" if claim.than else ""
                number = difference_text(claim.difference).removesuffix(" *") + than
            yield f"| {claim.text} | **{claim.verdict}** | {number} ({claim.reason}) | `{record.name}` |"
        for one in record.correlations:
            value = one.reason
            if one.value is not None and one.rival is not None:
                value = f"{one.coefficient} {signed(one.value)}, {one.better_than} {signed(one.rival)} ({one.reason})"
            yield f"| {one.text} | **{one.verdict}** | {value} | `{record.name}` |"
    yield ""


def _numbers(record: StudyRecord) -> Iterator[str]:
    """The means of each arm, and below each difference that has an interval."""
    yield f"### Study `{record.name}`"
    yield ""
    work = duration_text(sum(run.seconds for run in record.runs))
    seeds = ", ".join(map(str, record.seeds))
    made = "; ".join(map(made_with_text, record.made_with))
    own = f"{work} of work (without stages taken from other runs)"
    about = f"`robustok study {record.name}`: seeds {seeds}, {own}, {made}. All values by seed are in "
    about += f"`docs/studies/{record.name}.json` (fingerprint {record.fingerprint})."
    for study, runs in record.taken.items():
        of = dict.fromkeys(f"`{run.arm}`" for run in runs)
        about += f" The results of {' and '.join(of)} are those of the study `{study.partition(' ')[0]}`."
    yield from _paragraph(about)
    arms = [arm.name for arm in record.arms]
    if len(arms) > _MOST_COLUMNS:
        table = [["", *map(metric_name, record.metrics)]]
        table += [[arm, *(_cell(metric, arm) for metric in record.metrics)] for arm in arms]
    else:
        table = [["", *arms]]
        table += [[metric_name(metric), *(_cell(metric, arm) for arm in arms)] for metric in record.metrics]
    for number, row in enumerate(table):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield "|---" * len(row) + "|"
    yield ""
    first = record.arms[0].changes if record.arms else {}
    of_all = {key: value for key, value in first.items() if all(arm.changes.get(key) == value for arm in record.arms)}
    changes = "; ".join(f"`{arm.name}`: {changes_text(_without(arm, of_all))}" for arm in record.arms)
    common = ", ".join(f"{key} = {value}" for key, value in of_all.items()) or "as the recipe"
    about = f"Below each mean: the paired difference from `{record.base}`. All arms: {common}. Beside it:"
    yield from _paragraph(f"{about} {changes}.")


def _without(arm: ArmRecord, keys: Container[str]) -> ArmRecord:
    return attrs.evolve(arm, changes={key: value for key, value in arm.changes.items() if key not in keys})


def _paragraph(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)
    yield ""


def _cell(metric: MetricRecord, arm: str) -> str:
    if (summary := metric.arms.get(arm)) is None:
        return "–"
    difference = metric.differences.get(arm)
    return mean_text(summary) + ("" if difference is None else f" <br> {difference_text(difference)}")


def with_part(page: str, part: str) -> str:
    """The page with another text between its marks."""
    return re.sub(f"(?<={re.escape(_BEGIN)}).*(?={re.escape(_END)})", lambda _: part, page, flags=re.DOTALL)


def main(folders: Sequence[str]) -> None:
    """Copies the records of these studies, and rewrites the page."""
    for folder in folders:
        keep(Path(folder))
    PAGE.write_text(with_part(PAGE.read_text(), written(records())))


if __name__ == "__main__":
    main(sys.argv[1:])
