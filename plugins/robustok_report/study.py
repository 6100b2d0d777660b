"""The report of a study: verdicts on its claims, means and paired differences, by-seed values, and what was changed."""

from __future__ import annotations

from pathlib import Path

from robustok_core.values.numbers import duration_text
from robustok_report.page import Page
from robustok_study.record import MetricRecord, RunOfStudy, StudyRecord, read_study
from robustok_study.tables import (
    CLAIM_COLUMNS,
    CORRELATION_COLUMNS,
    CORRELATION_RULE,
    RULE,
    caveats,
    changes_text,
    claim_rows,
    correlation_rows,
    difference_text,
    gaps,
    made_with_text,
    mean_text,
    metric_name,
)
from robustok_study.verdicts import signed
from robustok_toolkit.report_parts import Cell, Lines, Part, Section, Series, Table, Text


def study_page(folder: Path) -> Page:
    """The page of a study, from its study.json.

    Raises:
        RobustokError: if that is damaged.
    """
    study = read_study(folder)
    sections = [_results(study), *_by_seed(study), _arms(study), _origin(study)]
    if study.correlations:
        sections.insert(1, _correlations(study))
    if study.claims:
        sections.insert(0, _verdicts(study))
    done = sum(run.state == "done" for run in study.runs)
    subtitle = f"study of {study.recipe} · {len(study.arms)} arms · seeds {', '.join(map(str, study.seeds))}"
    subtitle += f" · {done} of {len(study.runs)} runs done"
    return Page(title=study.name, subtitle=subtitle, sections=sections, missing=list(gaps(study)))


def _verdicts(study: StudyRecord) -> Section:
    rows: list[list[str | Cell]] = [
        [Cell(verdict, marked=verdict != "undecided"), *others] for verdict, *others in claim_rows(study)
    ]
    return Section("Verdicts", [Table("Claims", CLAIM_COLUMNS, rows), Text(RULE, muted=True)])


def _correlations(study: StudyRecord) -> Section:
    """The verdicts, and a scatter of each pair of metrics, a point for each arm."""
    rows: list[list[str | Cell]] = [
        [Cell(verdict, marked=verdict != "undecided"), *others] for verdict, *others in correlation_rows(study)
    ]
    parts: list[Part] = [Table("Claims", CORRELATION_COLUMNS, rows), Text(CORRELATION_RULE, muted=True)]
    pairs = {(one.metric, one.predicts): one.points for one in study.correlations if one.points}
    for (metric, predicts), points in pairs.items():
        dots = [Series(arm, [point[0]], [point[1]]) for arm, point in points.items()]
        parts.append(Lines(f"{metric} and {predicts}", dots, x=metric, y=predicts, markers=True))
    return Section("Correlations over arms", parts)


def _results(study: StudyRecord) -> Section:
    """A row for each metric and a column for each arm."""
    rows: list[list[str | Cell]] = []
    for metric in study.metrics:
        name = Cell(metric_name(metric), hint=metric.metric if metric.metric != metric.label else "")
        if metric.problem is not None:
            rows.append([name, Cell(f"not compared: {metric.problem}", marked=True), *["–" for _ in study.arms[1:]]])
        if metric.has_values:
            rows.append([name, *[_result(metric, arm.name) for arm in study.arms]])
    if not rows:
        return Section("Results", [Text("No run is finished yet.")])
    about = (
        "Means and their standard errors over seeds. Below each, its paired difference from "
        f"{study.base} and the 95 % interval of that; a star where it excludes 0."
    )
    columns = ["metric", *[f"{arm.name} (base)" if arm.name == study.base else arm.name for arm in study.arms]]
    return Section("Results", [Table("Arms", columns, rows), Text(about, muted=True), *map(Text, caveats(study))])


def _result(metric: MetricRecord, arm: str) -> Cell:
    if (summary := metric.arms.get(arm)) is None:
        return Cell("–")
    if (difference := metric.differences.get(arm)) is None:
        return Cell(mean_text(summary))
    hint = difference_text(difference)
    if difference.low is not None and difference.high is not None:
        hint += f", {signed(difference.low)} to {signed(difference.high)}"
    if difference.seeds_needed is not None:
        hint += f"; settled by about {difference.seeds_needed:,} seeds"
    return Cell(mean_text(summary), hint=hint, marked=difference.significant)


def _by_seed(study: StudyRecord) -> list[Section]:
    """The values of all arms over the seeds: lines that run side by side show that pairing helps."""
    shown = [metric for metric in study.metrics if metric.arms]
    if not shown:
        return []
    rows = [
        ["" if place else metric.label, arm, *[_number(summary.by_seed.get(str(seed))) for seed in study.seeds]]
        for metric in shown
        for place, (arm, summary) in enumerate(metric.arms.items())
    ]
    parts: list[Part] = [Table("Values", ["metric", "arm", *[f"seed {seed}" for seed in study.seeds]], rows)]
    if len(study.seeds) > 1:
        for metric in shown:
            series = [
                Series(arm, [float(seed) for seed in summary.by_seed], list(summary.by_seed.values()))
                for arm, summary in metric.arms.items()
            ]
            parts.append(Lines(metric.label, series, x="seed", y=metric.label, markers=True))
    why = "Arms with one seed start from the same weights and read the same batches: compare them seed by seed."
    return [Section("By seed", parts, why=why)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def _arms(study: StudyRecord) -> Section:
    changes = [[arm.name, changes_text(arm)] for arm in study.arms]
    rows: list[list[str | Cell]] = [
        [run.folder, run.arm, str(run.seed), _state(run, study), duration_text(run.seconds)] for run in study.runs
    ]
    rows.append(["all", "", "", "", duration_text(sum(run.seconds for run in study.runs))])
    return Section(
        "Arms and runs",
        [
            Table(f"What each arm changes in {study.recipe}", ["arm", "changes"], changes, code=True),
            Table("Runs", ["run", "arm", "seed", "state", "time"], rows, folded=True),
        ],
    )


def _state(run: RunOfStudy, study: StudyRecord) -> Cell:
    if run.taken_from is not None:
        return Cell("done elsewhere" if run.taken_from == study.identity else f"of study {run.taken_from}")
    return Cell(run.state, marked=run.state != "done")


def _origin(study: StudyRecord) -> Section:
    rows = [
        ["Study file", study.file + (", with its table [quick]" if study.quick else "")],
        ["Made with", "; ".join(map(made_with_text, study.made_with)) or "nothing yet"],
        ["Fingerprint", f"{study.fingerprint}, equal for two studies of the same runs"],
        ["Written", study.written.replace("T", " ")],
    ]
    return Section("What ran", [Table("Origin", ["", ""], rows)])
