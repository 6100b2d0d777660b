"""A study as text: on the terminal, and as study.md."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustok_core.runs.files import write_text
from robustok_core.runs.precision import COMPUTED
from robustok_core.values.numbers import number_text
from robustok_core.values.printable import printable
from robustok_core.values.terminal import print_table, say, say_wrapped
from robustok_study.record import ArmRecord, Difference, MetricRecord, StudyRecord, Summary
from robustok_study.verdicts import signed

if TYPE_CHECKING:
    from rich.console import Console

MARKDOWN_FILE = "study.md"
_HEADERS = ("metric", "arm", "mean ± error", "difference", "95 % interval", "seeds to settle", "by seed")
CLAIM_COLUMNS = ("verdict", "claim", "metric", "arm", "found", "why")
CORRELATION_COLUMNS = ("verdict", "claim", "metrics", "coefficient", "rival", "why")
CORRELATION_RULE = (
    "A correlation is over the means of at least 10 arms. A claim on it is reproduced if its 95 % interval, or that of "
    "its lead over the size of the rival's, lies above 0, contradicted if below, and undecided otherwise; arms are "
    "drawn again and again (bootstrap)."
)
#: What a run is said to be made on where the processor's name is not known.
_ARCHITECTURES = frozenset({"x86_64", "AMD64", "i386", "aarch64", "arm64", "arm"})
#: How many values of what differs are named.
_NAMED = 3
#: A processor's name, and the vector instructions that were used.
_PROCESSOR = re.compile(r"(.*) \([A-Z0-9 _]+\)")
RULE = (
    "A claim is reproduced if the 95 % interval (Student's t) of the mean paired difference of at least 3 seeds lies "
    "wholly on the claimed side, contradicted if it lies on the other side, and undecided otherwise. "
    "A star marks a difference whose interval excludes 0."
)


def print_study(console: Console, record: StudyRecord) -> None:
    """Prints the table and the verdicts."""
    print_table(console, _HEADERS, _rows(record))
    for rows in (claim_rows(record), correlation_rows(record)):
        if rows:
            say(console, "")
        for verdict, text, *measured, why in rows:
            say_wrapped(console, f"{verdict}: {text}", hang=2)
            say_wrapped(console, f"  {'; '.join(part for part in measured if part not in ('', '–'))} ({why})", hang=2)
    for line in (*gaps(record), *caveats(record)):
        say(console, line)


def write_markdown(folder: Path, record: StudyRecord) -> None:
    """Writes study.md."""
    write_text(folder / MARKDOWN_FILE, "\n".join(_markdown(record)) + "\n")


def _markdown(record: StudyRecord) -> Iterator[str]:
    yield f"# {record.name}"
    yield ""
    seeds = ", ".join(map(str, record.seeds))
    yield f"Recipe `{record.recipe}`, seeds {seeds}; differences are to `{record.base}`, seed by seed. {RULE}"
    if record.claims:
        yield ""
        yield from _markdown_table(CLAIM_COLUMNS, claim_rows(record))
    if record.correlations:
        yield ""
        yield CORRELATION_RULE
        yield ""
        yield from _markdown_table(CORRELATION_COLUMNS, correlation_rows(record))
    yield ""
    yield from _markdown_table(_HEADERS, _rows(record))
    yield ""
    yield from _markdown_table(("arm", "changes"), [[f"`{arm.name}`", changes_text(arm)] for arm in record.arms])
    yield ""
    for line in (*gaps(record), *caveats(record)):
        yield f"- {printable(line)}"
    for made in record.made_with:
        yield f"- made with {made_with_text(made)}"
    yield f"- study file `{record.file}`, fingerprint {record.fingerprint}, written {record.written}"


def made_with_text(made: Mapping[str, Any]) -> str:
    """The versions and the machine that made results."""
    commit = f" ({made['git_commit']})" if made.get("git_commit") else ""
    threads = made.get("threads")
    machine = f"on {made.get('device')}, {threads} {'thread' if threads == 1 else 'threads'}"
    auto = f", precision auto: {COMPUTED[made['auto_precision']]}" if made.get("auto_precision") else ""
    return f"robustok {made.get('robustok')}{commit}, torch {made.get('torch')}, {machine}{auto}"


def changes_text(arm: ArmRecord) -> str:
    """What an arm changes and loads."""
    parts = [f"{key} = {value}" for key, value in arm.changes.items()]
    return "; ".join(parts + [f"{artifact} of {of}" for artifact, of in arm.load.items()]) or "none"


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield "|" + "---|" * len(headers)
    for row in rows:
        yield f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in row)} |"


def _rows(record: StudyRecord) -> list[list[str]]:
    rows = []
    for metric in record.metrics:
        name = metric_name(metric)
        if metric.problem is not None:
            rows.append([name, "", f"not compared: {metric.problem}", "", "", "", ""])
        for arm, summary in metric.arms.items():
            rows.append(
                [
                    name,
                    arm,
                    mean_text(summary),
                    *_difference_cells(metric.differences.get(arm)),
                    _by_seed(summary, record.seeds),
                ]
            )
            name = ""
    return rows


def metric_name(metric: MetricRecord) -> str:
    """Its label, with how many images it was measured with."""
    if metric.num_images is None:
        return metric.label
    reference = f" against {metric.num_reference:,}" if metric.num_reference else ""
    return f"{metric.label} (n = {metric.num_images:,}{reference})"


def mean_text(summary: Summary) -> str:
    """A mean with its standard error."""
    if summary.standard_error is None:
        return number_text(summary.mean, 4)
    return f"{number_text(summary.mean, 4)} ± {number_text(summary.standard_error, 2)}"


def _by_seed(summary: Summary, seeds: Sequence[int]) -> str:
    """The values in the order of the seeds; a dash for each that is missing."""
    values = [summary.by_seed.get(str(seed)) for seed in seeds]
    return ", ".join("–" if value is None else number_text(value, 4) for value in values)


def _difference_cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", ""]
    mean = difference_text(difference)
    if difference.low is None or difference.high is None:
        return [mean, "", ""]
    settled = "" if difference.significant else ">1,000" if difference.standard_error else "–"
    needed = f"{difference.seeds_needed:,}" if difference.seeds_needed is not None else settled
    return [mean, f"{signed(difference.low)} to {signed(difference.high)}", needed]


def difference_text(difference: Difference) -> str:
    """A difference with its standard error, and a star if its interval excludes 0."""
    error = "" if difference.standard_error is None else f" ± {number_text(difference.standard_error, 2)}"
    return f"{signed(difference.mean)}{error}{' *' if difference.significant else ''}"


def claim_rows(record: StudyRecord) -> list[list[str]]:
    """The claims and their verdicts, below `CLAIM_COLUMNS`."""
    rows = []
    for claim in record.claims:
        arm = claim.arm if claim.base is None else f"{claim.arm} - {claim.base}"
        if claim.beyond is not None:
            arm = f"({arm}) - ({claim.beyond['arm']} - {claim.beyond['base']})"
        claimed = f"{claim.direction} than {number_text(claim.than, 3)}"
        found = "" if claim.difference is None else difference_text(claim.difference).removesuffix(" *")
        rows.append([claim.verdict, claim.text, f"{claim.metric} {claimed}", arm, found, claim.reason])
    return rows


def correlation_rows(record: StudyRecord) -> list[list[str]]:
    """The claims on correlations and their verdicts, below `CORRELATION_COLUMNS`."""
    return [
        [
            one.verdict,
            one.text,
            f"{one.metric} with {one.predicts}",
            "–" if one.value is None else f"{one.coefficient} {signed(one.value)}",
            "–" if one.rival is None else f"{one.better_than}: {signed(one.rival)}",
            one.reason,
        ]
        for one in record.correlations
    ]


def gaps(record: StudyRecord) -> Iterator[str]:
    """What failed, is left out, or is not finished."""
    for run in record.runs:
        if run.problem is not None:
            yield f"{run.folder} failed: {run.problem}"
    for metric in record.metrics:
        for arm, why in metric.left_out.items():
            yield f"{metric.label}: the arm {arm} is left out: {why}"
    if missing := [run.folder for run in record.runs if run.state != "done" and run.problem is None]:
        yield f"not finished: {', '.join(missing)}"


def _may_be_one(devices: Collection[str]) -> bool:
    """Whether these names may all be of one processor, because all but one of them are its architecture."""
    known = {name for name in devices if _bare(name) not in _ARCHITECTURES}
    unknown = {_bare(name) for name in devices} & _ARCHITECTURES
    return len(unknown) == 1 and len(known) <= 1 and all(_PROCESSOR.fullmatch(name) for name in known)


def _bare(device: str) -> str:
    named = _PROCESSOR.fullmatch(device)
    return device if named is None else named[1]


def caveats(record: StudyRecord) -> Iterator[str]:
    """What is from other studies, and on what different machines and with what different versions runs were made."""
    for study, runs in record.taken.items():
        yield f"results taken from the record of study {study}: {', '.join(run.folder for run in runs)}"
    if len(devices := {str(made["device"]) for made in record.made_with if made.get("device")}) > 1:
        what = "made on different devices, so that differences are not exactly paired"
        if _may_be_one(devices):
            what = "made on devices of which not all are known by name, so that differences may not be exactly paired"
        yield f"{what}: {', '.join(sorted(devices))}"
    if len(threads := {str(made.get("threads")) for made in record.made_with}) > 1:
        yield f"made with different numbers of threads: {', '.join(sorted(threads))}"
    if len(autos := {COMPUTED[made["auto_precision"]] for made in record.made_with if made.get("auto_precision")}) > 1:
        what = 'made with different precisions where recipes say "auto", so that differences are not exactly paired'
        yield f"{what}: {', '.join(sorted(autos))}"
    yield from _versions(record.made_with)


def _versions(made_with: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """In what versions differ, where they are known."""
    kinds = {"robustok": "versions of robustok", "git_commit": "commits of robustok", "torch": "versions of torch"}
    for key, what in kinds.items():
        if len(values := sorted({str(made[key]) for made in made_with if made.get(key)})) > 1:
            more = ["..."] if len(values) > _NAMED else []
            yield f"made with different {what}: {', '.join(values[:_NAMED] + more)}"
