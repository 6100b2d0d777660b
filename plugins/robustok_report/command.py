"""`robustok report`."""

from __future__ import annotations

from pathlib import Path

import click

from robustok_core.values.terminal import echo


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write; default: RUN/report.html, of several ./report.html."
)
@click.option("--pdf", type=click.Path(path_type=Path), help="Folder for the figures as vector PDF (needs matplotlib).")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
def report(runs: tuple[Path, ...], out: Path | None, pdf: Path | None, device: str | None) -> None:
    """Write the report of a RUN or a study as one HTML file, or compare several RUNS in one.

    The file loads nothing, so it can be mailed or put on a server as it is. An older report is replaced. That of
    several runs is report.html in the current folder, unless --out names another. Example:
    `robustok report runs/main_train runs/baseline --out compared.html`.
    """
    from robustok_core.recipe.registry import load_registry
    from robustok_report.report import REPORT_FILE, write_report

    file = out or (runs[0] / REPORT_FILE if len(runs) == 1 else Path(REPORT_FILE))
    write_report(runs, file, registry=load_registry(), device=device, pdf=pdf)
    echo(f"written to {file}")
    if pdf is not None:
        echo(f"figures in {pdf}")
