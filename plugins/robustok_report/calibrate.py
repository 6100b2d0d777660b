"""`robustok calibrate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

from robustok_core.values.terminal import echo, make_console, print_table

if TYPE_CHECKING:
    from robustok_toolkit.calibration import Errors


@frozen(kw_only=True)
class _Conditions:
    num_images: int
    codebook_size: int


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--guidance",
    "scales",
    multiple=True,
    type=click.FloatRange(0.0, 1e6),
    help="A guidance scale; several are compared; default: 1, no guidance.",
)
@click.option(
    "--limit", default=1000, show_default=True, type=click.IntRange(1), help="Largest number of held-out images."
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a sampler option, e.g. top_k=100.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the draws.")
@click.option("--batch-size", default=50, show_default=True, type=click.IntRange(1), help="Images per batch.")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the errors by token.")
@click.option("--pdf", type=click.Path(path_type=Path), help="Folder for the figures as vector PDF (needs matplotlib).")
def calibrate(
    run: Path,
    scales: tuple[float, ...],
    limit: int,
    changes: tuple[str, ...],
    seed: int,
    batch_size: int,
    device: str | None,
    as_json: bool,
    pdf: Path | None,
) -> None:
    """Measure how the generator of a RUN errs, and print the perturbation that errs alike.

    Along held-out images, it samples each code after the true codes before it. How far, among the neighbours of the
    true code, its draws lie is a law that the perturbation rank_law draws from, in training and in the metric
    rank_pfd. Example: `robustok calibrate runs/main_train --guidance 1 --guidance 1.5`.
    """
    from robustok_report.pdf_figures import save_figures
    from robustok_report.sections.calibration import figures, recipe_line
    from robustok_toolkit.report_parts import Section

    found, about = _measured(run, scales or (1.0,), limit, changes, seed, batch_size, device)
    if as_json:
        echo(json.dumps({scale: dict(errors.as_details()) for scale, errors in found.items()}, indent=2))
    else:
        _print(found, about)
        for scale, errors in found.items():
            echo(f"guidance {scale}: {recipe_line(errors.shares)}")
    if pdf is not None:
        parts = figures({scale: errors.as_details() for scale, errors in found.items()})
        save_figures([Section("Calibration", parts)], pdf)
        echo(f"figures in {pdf}", err=as_json)


def _measured(
    run: Path, scales: Sequence[float], limit: int, changes: Sequence[str], seed: int, batch_size: int, device: Any
) -> tuple[Mapping[str, Errors], _Conditions]:
    from robustok_core.recipe.registry import load_registry
    from robustok_core.values.draws import derive_seed
    from robustok_core.values.guidance import Guidance
    from robustok_toolkit.calibration import errors_of, forced_ranks, held_out_rows
    from robustok_toolkit.generator_of_command import open_generator
    from robustok_toolkit.reported_run import ReportedRun

    opened = open_generator(run, device=device, changes=changes)
    trained = opened.trained
    images = ReportedRun(run, load_registry(), trained.tokenizer.device).data.validation
    tokenizer, rows = trained.tokenizer.tokenizer, held_out_rows(images, limit)
    codebook_size = tokenizer.space.codebook_size or 0
    found = {}
    for scale in dict.fromkeys(scales):
        ranks = forced_ranks(
            tokenizer,
            trained.generator,
            images,
            rows,
            seed=derive_seed(seed, "calibrate"),
            guidance=Guidance(scale=scale),
            sampling=opened.sampling,
            batch_size=batch_size,
        )
        found[f"{scale:g}"] = errors_of(ranks, codebook_size)
    return found, _Conditions(num_images=len(rows), codebook_size=codebook_size)


def _print(found: Mapping[str, Errors], about: _Conditions) -> None:
    from robustok_toolkit.calibration import paper_delta

    rows = []
    for scale, errors in found.items():
        where = [f"{errors.within_delta:.1%}", f"{errors.relative_rank:.1%} of K"] if errors.changed else ["–", "–"]
        rows.append([scale, f"{errors.changed:.1%}", *where])
    delta = f"of these, within δ = {paper_delta(about.codebook_size)}"
    print_table(make_console(), ["guidance", "other codes", delta, "their mean rank"], rows)
    echo(f"{about.num_images:,} held-out images, K = {about.codebook_size:,}; δ is 100 of 4,096 codes, as in the paper")
