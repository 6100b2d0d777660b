"""`robustok tune-guidance`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustok_core.cli.ranges import FiniteRange
from robustok_core.values.terminal import echo, make_console, print_table, say

if TYPE_CHECKING:
    from robustok_core.kinds.sample_metric import SampleMetric
    from robustok_core.values.guidance import Guidance
    from robustok_core.values.result import Result
    from robustok_core.values.spec import Spec
    from robustok_toolkit.guidance_search import GuidanceSearch
    from robustok_toolkit.reported_run import ReportedRun

    #: The main result of a number of samples with a seed.
    Measure = Callable[[Guidance, int, int], Result]


#: What is tuned where the recipe measures no samples; its network needs no download.
_DEFAULT_METRIC = {"use": "frechet", "features": {"use": "efficientnet_lite0"}}


@click.command("tune-guidance")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--metric", metavar="NAME", help="What to tune, of the recipe's evaluate_generator; default: its first, else gFD."
)
@click.option("--samples", default=1000, show_default=True, type=click.IntRange(2), help="Samples of each trial.")
@click.option(
    "--confirm", default=5000, show_default=True, type=click.IntRange(2), help="Samples of the winner, drawn anew."
)
@click.option(
    "--scale",
    "scales",
    multiple=True,
    type=FiniteRange(0.0, 1e6),
    help="A scale to try; default: 1 to 8, until two in a row are worse. Others near the best are tried, too.",
)
@click.option(
    "--reference",
    default="train",
    show_default=True,
    type=click.Choice(["train", "validation"]),
    help="Images of the recipe's data. What results are reported on should not be tuned on.",
)
@click.option("--limit", default=5000, show_default=True, type=click.IntRange(2), help="Most reference images.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a sampler option, e.g. top_k=100.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the samples.")
@click.option("--batch-size", default=50, show_default=True, type=click.IntRange(1), help="Samples per batch.")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
@click.option("--out", type=click.Path(path_type=Path), help="New JSON file for all trials, the curve among them.")
def tune_guidance(
    run: Path,
    metric: str | None,
    samples: int,
    confirm: int,
    scales: tuple[float, ...],
    reference: str,
    limit: int,
    changes: tuple[str, ...],
    seed: int,
    batch_size: int,
    device: str | None,
    out: Path | None,
) -> None:
    """Search the guidance with which the generator of a RUN samples best, and print it as a recipe's line.

    First the scale, then schedules, then parts of the sampling, each with few samples and the same random numbers. The
    winner is measured again with many samples and other random numbers, beside no guidance: the best of many trials
    looks better than it is. Example: `robustok tune-guidance runs/main_train --out guidance.json`.
    """
    from robustok_core.runs.files import write_json
    from robustok_core.values.guidance import Guidance
    from robustok_toolkit.guidance_search import GuidanceSearch, best_of, recipe_line
    from robustok_toolkit.new_files import new_output, require_new

    if out is not None:
        require_new(out)
    name, measure, sampling = _measuring(run, metric, reference, limit, changes, batch_size, device, (samples, confirm))
    search = GuidanceSearch(lambda guidance: measure(guidance, samples, seed))
    console = make_console(err=True)
    for trial in search.run(scales):
        say(console, f"{trial.what}: {recipe_line(trial.guidance)}: {name} {trial.result.value:.5g}")
    chosen = list(dict.fromkeys([Guidance(), search.best.guidance]))
    confirmed = {guidance: measure(guidance, confirm, seed + 1) for guidance in chosen}
    _print(name, search, confirmed, samples, confirm)
    best = best_of(confirmed)
    if best != search.best.guidance:
        say(console, "measured again, the best trial is no better than no guidance: its lead was chance")
    echo(recipe_line(best))
    if out is not None:
        trials = [{"guidance": recipe_line(trial.guidance), name: trial.result.value} for trial in search.trials]
        about = {"run": str(run), "samples": samples, "reference": reference, "limit": limit, "seed": seed}
        again = {recipe_line(guidance): result.table() for guidance, result in confirmed.items()}
        with new_output(out) as unfinished:
            write_json(unfinished, {**about, "sampling": sampling, "trials": trials, "confirmed": again})
        echo(f"written to {out}")


def _measuring(
    run: Path,
    metric: str | None,
    reference: str,
    limit: int,
    changes: Sequence[str],
    batch_size: int,
    device: str | None,
    counts: Iterable[int],
) -> tuple[str, Measure, Mapping[str, Any]]:
    """The name of the number to tune, what measures it, and the sampler's options."""
    import torch

    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.downloads import provide
    from robustok_core.values.spec import plain
    from robustok_toolkit.generating import ImagesInMemory
    from robustok_toolkit.generator_of_command import open_generator
    from robustok_toolkit.image_features import ExtractedFeatures, Extraction, SharedFeatures
    from robustok_toolkit.reported_run import ReportedRun

    opened = open_generator(run, device=device, changes=changes, as_for="samples")
    trained, torch_device = opened.trained, opened.trained.tokenizer.device
    reported = ReportedRun(run, load_registry(), torch_device)
    key, spec = _metric(reported, metric)
    built: SampleMetric = spec.build()
    if others := built.other_sets():
        what = f"{key} compares with a further set of real images ({', '.join(others)}), and there is none here"
        raise RobustokError(what, where="--metric", hint="name another metric of the recipe")
    if not trained.generator.knows_null_class:
        hint = "train with label_dropout above 0"
        raise RobustokError("its generator was trained without label dropout, so it knows no guidance", hint=hint)
    extraction = Extraction(networks=SharedFeatures(torch_device), device=torch_device)
    for line in opened.notes_beside(reported):
        say(make_console(err=True), line)
    split = getattr(reported.data, reference)
    real = ExtractedFeatures(split, extraction, name=f"{reference} images", limit=limit)
    for count in counts:
        built.check(count, len(real))
    provide({key: spec}, partial(say, make_console(err=True)))
    built.check_features(extraction.networks, real.statistics)

    def measure(guidance: Guidance, count: int, seed: int) -> Result:
        labels = trained.labels(None, count)
        latents = trained.sampled(labels, guidance=guidance, seed=seed, sampling=opened.sampling, batch_size=batch_size)
        decoded = (batch for part in latents for batch in trained.tokenizer.decoded(part, batch_size=batch_size))
        images = ImagesInMemory(torch.cat([batch.cpu() for batch in decoded]), labels)
        found = built.compute(ExtractedFeatures(images, extraction, name="samples"), real)
        return next(iter(found.values()))

    return key, measure, plain(opened.sampling)


def _metric(run: ReportedRun, name: str | None) -> tuple[str, Spec]:
    from robustok_core.errors import RobustokError, did_you_mean

    metrics: dict[str, Any] = {}
    for stage in run.recipe.stages:
        if stage.spec.name == "evaluate_generator":
            metrics |= {key: spec for key, spec in stage.spec.config.metrics.items() if key not in metrics}
    if not metrics:
        metrics = {"gfd": run.registry.spec("sample_metric", _DEFAULT_METRIC)}
    if name is not None and name not in metrics:
        what = f"its recipe measures no {name!r}"
        raise RobustokError(what, where="--metric", hint=did_you_mean(name, list(metrics)))
    key = name or next(iter(metrics))
    return key, metrics[key]


def _print(name: str, search: GuidanceSearch, confirmed: Mapping[Guidance, Result], samples: int, confirm: int) -> None:
    from robustok_core.values.numbers import number_text
    from robustok_toolkit.guidance_search import recipe_line

    console = make_console()
    rows = [
        [recipe_line(trial.guidance), f"{number_text(trial.result.value, 4)}{' *' if trial is search.best else ''}"]
        for trial in search.trials
    ]
    print_table(console, [f"{samples} samples each, the same random numbers", name], rows)
    again = [[recipe_line(guidance), number_text(result.value, 4)] for guidance, result in confirmed.items()]
    print_table(console, [f"measured again with {confirm} other samples", name], again)
