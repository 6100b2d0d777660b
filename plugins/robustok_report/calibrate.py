"""`robustok calibrate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustok_core.cli.ranges import FiniteRange
from robustok_core.values.terminal import echo, echo_json, make_console, print_table

if TYPE_CHECKING:
    from robustok_toolkit.calibration import Errors
    from robustok_toolkit.vector_errors import ErrorsBySigma

    #: By guidance scale.
    Found = Mapping[str, Errors | ErrorsBySigma]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--guidance",
    "scales",
    multiple=True,
    type=FiniteRange(0.0, 1e6),
    help="A guidance scale; several are compared; default: 1, no guidance.",
)
@click.option(
    "--sigma",
    "sigmas",
    multiple=True,
    type=FiniteRange(0.0, 1.0, max_open=True),
    help="Of vectors: a share of each image to keep; several are compared; default: 0.9, 0.8, 0.6 and 0.4.",
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
    sigmas: tuple[float, ...],
    limit: int,
    changes: tuple[str, ...],
    seed: int,
    batch_size: int,
    device: str | None,
    as_json: bool,
    pdf: Path | None,
) -> None:
    """Measure how the generator of a RUN errs, and whether a perturbation imitates it.

    Of codes: along held-out images, it samples each code after the true codes before it. How far, among the neighbours
    of the true code, its draws lie is a law that the perturbation rank_law draws from, in training and in the metric
    rank_pfd. Of vectors: it makes latents that keep a share sigma of held-out images'; their errors are compared with
    independent noise. Example: `robustok calibrate runs/main_train --guidance 1 --guidance 1.5`.
    """
    from robustok_report.pdf_figures import require_figures, save_figures
    from robustok_report.sections.calibration import figures
    from robustok_toolkit.report_parts import Section

    if pdf is not None:
        require_figures(pdf)
    found, num_images, codebook_size = _measured(
        run, scales or (1.0,), sigmas, limit, changes, seed, batch_size, device
    )
    details = {scale: dict(errors.as_details()) for scale, errors in found.items()}
    if as_json:
        echo_json(details)
    elif codebook_size is None:
        _print_vectors(found, num_images)
    else:
        _print_codes(found, num_images, codebook_size)
    if pdf is not None:
        save_figures([Section("Calibration", figures(details))], pdf)
        echo(f"figures in {pdf}", err=as_json)


def _measured(
    run: Path,
    scales: Sequence[float],
    sigmas: Sequence[float],
    limit: int,
    changes: Sequence[str],
    seed: int,
    batch_size: int,
    device: str | None,
) -> tuple[Found, int, int | None]:
    """The errors, the number of images, and of codes K."""
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.run_record import is_run
    from robustok_core.values.draws import derive_seed
    from robustok_core.values.guidance import Guidance
    from robustok_toolkit.calibration import errors_of_generator, held_out_rows, wrong_option
    from robustok_toolkit.generator_of_command import open_generator
    from robustok_toolkit.reported_run import ReportedRun

    if not is_run(run):
        hint = "name the folder of a run, runs/NAME: its held-out images are needed, too"
        raise RobustokError("this is not the folder of a run", where=str(run), hint=hint)
    opened = open_generator(run, device=device, changes=changes, as_for="pairs")
    generator, tokenizer = opened.trained.generator, opened.trained.tokenizer.tokenizer
    codebook_size = tokenizer.space.codebook_size
    if wrong := wrong_option(generator, limit=limit, sigmas=sigmas, scales=scales):
        option, problem = wrong
        where = {"limit": "--limit", "sigmas": "--sigma", "scales": "--guidance"}[option]
        raise RobustokError(problem.what, where=where, hint=problem.hint)
    reported = ReportedRun(run, load_registry(), opened.trained.tokenizer.device)
    for line in opened.notes_beside(reported):
        echo(line, err=True)
    images = reported.data.validation
    rows = held_out_rows(images, limit)
    found = {
        f"{scale:g}": errors_of_generator(
            tokenizer,
            generator,
            images,
            rows,
            sigmas=tuple(dict.fromkeys(sigmas)) or None,
            seed=derive_seed(seed, "calibrate"),
            guidance=Guidance(scale=scale),
            sampling=opened.sampling,
            batch_size=batch_size,
        )
        for scale in dict.fromkeys(scales)
    }
    return found, len(rows), codebook_size


def _print_codes(found: Mapping[str, Any], num_images: int, codebook_size: int) -> None:
    from robustok_report.sections.calibration import recipe_line
    from robustok_toolkit.calibration import paper_delta

    rows = []
    for scale, errors in found.items():
        where = [f"{errors.within_delta:.1%}", f"{errors.relative_rank:.1%} of K"] if errors.changed else ["–", "–"]
        rows.append([scale, f"{errors.changed:.1%}", *where])
    delta = f"of these, within δ = {paper_delta(codebook_size)}"
    print_table(make_console(), ["guidance", "other codes", delta, "their mean rank"], rows)
    echo(f"{num_images:,} held-out images, K = {codebook_size:,}; δ is 100 of 4,096 codes, as in the paper")
    for scale, errors in found.items():
        echo(f"guidance {scale}: {recipe_line(errors.shares)}")
    at_the_end = "at the end of the annealing, too, with delta's value there"
    echo(f"in place of top_delta, give it the same beta, and alpha times (delta - 1) / delta, {at_the_end}")


def _print_vectors(found: Mapping[str, Any], num_images: int) -> None:
    from robustok_report.sections.calibration import SHAPES, VECTOR_COLUMNS, vector_rows

    rows = [row for scale, by_sigma in found.items() for row in vector_rows(scale, by_sigma.as_details())]
    print_table(make_console(), [*VECTOR_COLUMNS, *SHAPES.values()], rows)
    echo(f"{num_images:,} held-out images; noise: independent, of the same size, as the perturbation gaussian adds it")
