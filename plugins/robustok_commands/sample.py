"""`robustok sample`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustok_core.cli.ranges import FiniteRange
from robustok_core.values.terminal import echo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--class", "classes", multiple=True, metavar="N|NAME", help="A class; default: all in turn.")
@click.option(
    "--count", default=16, show_default=True, type=click.IntRange(1), help="Number of samples, over all classes."
)
@click.option(
    "--guidance", default=1.0, show_default=True, type=FiniteRange(0.0), help="Guidance scale; 1 is no guidance."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a sampler option, e.g. temperature=0.9."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the samples.")
@click.option("--batch-size", default=50, show_default=True, type=click.IntRange(1), help="Samples per batch.")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New GRID.png, SAMPLES.npz or folder.")
def sample(
    run: Path,
    classes: tuple[str, ...],
    count: int,
    guidance: float,
    changes: tuple[str, ...],
    seed: int,
    batch_size: int,
    device: str | None,
    out: Path,
) -> None:
    """Sample images from the generator of a RUN (a run's or an artifact's folder).

    Sample i is the same for any count and batch size. The ending of OUT decides what is saved: one .png with a row
    per class, ADM's sample file (.npz), or a folder of PNG files. Example:
    `robustok sample runs/rar --class 3 --out boots.png`.
    """
    from robustok_toolkit.generator_of_command import open_generator
    from robustok_toolkit.new_files import new_output, refuse_other_endings, require_new

    require_new(out)
    refuse_other_endings(out, ".png", ".npz")
    opened = open_generator(run, device=device, changes=changes)
    trained = opened.trained
    labels = trained.labels(classes or None, count)
    latents = trained.sampled(labels, guidance=guidance, seed=seed, sampling=opened.sampling, batch_size=batch_size)
    decoded = (batch for samples in latents for batch in trained.tokenizer.decoded(samples, batch_size=batch_size))
    with new_output(out) as unfinished:
        _write(unfinished, decoded, labels, trained.class_names, trained.tokenizer.tokenizer.image_size)
    echo(f"written to {out}")


def _write(out: Path, batches: Iterator[Tensor], labels: Tensor, names: Sequence[str], size: int) -> None:
    from robustok_core.runs.files import new_folder
    from robustok_toolkit.image_files import write_samples
    from robustok_toolkit.pictures import rows_by_class, save_png, save_rows

    images = _single_images(batches)
    if out.suffix == ".npz":
        write_samples(out, images, labels, image_size=size)
    elif out.suffix == ".png":
        save_rows(out, rows_by_class(list(images), labels, names, len(labels), most_classes=len(labels)))
    else:
        with new_folder(out) as aside:
            for number, image in enumerate(images):
                save_png(aside / f"{number:06d}.png", image)


def _single_images(batches: Iterator[Tensor]) -> Iterator[NDArray[np.uint8]]:
    """Yields single images (H, W, 3) uint8 from batches (b, 3, H, W)."""
    for batch in batches:
        yield from batch.permute(0, 2, 3, 1).contiguous().cpu().numpy()
