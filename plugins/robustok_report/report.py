"""The report of one run: the sections of all plugins on one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import HookFailure, Registry
from robustok_core.runs.devices import device_called
from robustok_core.runs.files import write_text
from robustok_core.values.numbers import duration_text
from robustok_report.made_sections import made_sections
from robustok_report.page import Page
from robustok_report.pdf_figures import require_figures, save_figures
from robustok_report.sections.calibration import calibration
from robustok_report.sections.codebook import codebook
from robustok_report.sections.numbers import numbers
from robustok_report.sections.overview import what_ran
from robustok_report.sections.post_training import post_training
from robustok_report.sections.reconstructions import reconstructions
from robustok_report.sections.robustness import robustness
from robustok_report.sections.samples import samples
from robustok_report.sections.training import training
from robustok_report.several import compared
from robustok_report.study import study_page
from robustok_study.record import is_study
from robustok_toolkit.new_files import require_place
from robustok_toolkit.report_parts import Section
from robustok_toolkit.reported_run import ReportedRun

REPORT_FILE = "report.html"
_HOOK = "robustok_report_section"

#: The sections in their order, by the name under which one that cannot be written is mentioned.
_SECTIONS: dict[str, Callable[[ReportedRun], Section | None]] = {
    "Numbers": numbers,
    "Reconstructions": reconstructions,
    "Robustness": robustness,
    "Calibration": calibration,
    "Samples": samples,
    "Post-training": post_training,
    "Codebook": codebook,
    "Training": training,
    "What ran": what_ran,
}


def is_wanted(folder: Path) -> bool:
    """Whether the recipe of a run lets it write a report: [run] report."""
    from robustok_core.recipe.source import read_source
    from robustok_core.runs.history import RECIPE_FILE

    return read_source(folder / RECIPE_FILE).table.get("run", {}).get("report") is not False


def write_report(
    runs: Sequence[Path], file: Path, *, registry: Registry, device: str | None = None, pdf: Path | None = None
) -> None:
    """Writes the report of a run or of a study, or the comparison of several runs.

    Args:
        runs: folders, or that of a study alone. file: the page to write; an older one is replaced.
        registry: builds the components, and asks the plugins for their sections.
        device: where pictures are decoded; default: the GPU if there is one.
        pdf: a folder for the figures as vector PDF.

    Raises:
        RobustokError: if one is no run's folder, the file is something else than a report, or something cannot be
            written.
    """
    if file.exists() and not _is_report(file):
        hint = "only an older report is replaced: choose a new name"
        raise RobustokError("this already exists, and is no report", where=str(file), hint=hint)
    require_place(file)
    if pdf is not None:
        require_figures(pdf)
    page = study_page(runs[0]) if _is_of_a_study(runs) else _of_runs(runs, registry, device)
    write_text(file, page.html())
    if pdf is not None:
        save_figures(page.sections, pdf)


def _is_report(file: Path) -> bool:
    """Whether a file is a page that was written here: its head names its generator."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return b'<meta name="generator" content="robustok ' in opened.read(2048)


def _is_of_a_study(folders: Sequence[Path]) -> bool:
    studies = [folder for folder in folders if is_study(folder)]
    if studies and len(folders) > 1:
        hint = f"a study has a page of its own: `robustok report {studies[0]}`"
        raise RobustokError("this is the folder of a study, not of a run", where=str(studies[0]), hint=hint)
    return bool(studies)


def _of_runs(folders: Sequence[Path], registry: Registry, device: str | None) -> Page:
    runs = [ReportedRun(folder, registry, device_called(device)) for folder in folders]
    return _of_one(runs[0]) if len(runs) == 1 else compared(runs)


def first_party_sections(run: ReportedRun) -> list[Section]:
    """Our sections; one that lacks something is left out and named among what is missing."""
    return made_sections({name: partial(make, run) for name, make in _SECTIONS.items()}, run.missing)


def _of_one(run: ReportedRun) -> Page:
    sections: list[Section] = []
    for plugin, answer in reversed(run.registry.ask(_HOOK, run=run).items()):
        if isinstance(answer, HookFailure):
            run.missing.append(f"the section of the plugin {plugin!r}, which failed: {answer.reason}")
            continue
        for section in _listed(answer):
            if isinstance(section, Section):
                sections.append(section)
            else:
                what = f"returned a {type(section).__name__}, not a Section"
                run.missing.append(f"the section of the plugin {plugin!r}, which {what}")
    return Page(title=run.name, subtitle=_subtitle(run), sections=sections, missing=run.missing)


def _listed(answer: object) -> Iterable[object]:
    return () if answer is None else answer if isinstance(answer, (list, tuple)) else (answer,)


def _subtitle(run: ReportedRun) -> str:
    parts = [
        f"{run.table[name]['use']}" + (f" ({run.table[name]['quantizer']['use']})" if _has_quantizer(run, name) else "")
        for name in ("data", "tokenizer", "perturbation", "generator", "post_trainer")
        if isinstance(run.table.get(name), dict) and "use" in run.table[name]
    ]
    seconds = sum(stage.seconds for stage in run.stages)
    return " · ".join([*parts, f"seed {run.record.get('seed', '?')}", duration_text(seconds)])


def _has_quantizer(run: ReportedRun, name: str) -> bool:
    return isinstance(run.table[name].get("quantizer"), dict) and "use" in run.table[name]["quantizer"]
