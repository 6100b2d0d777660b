"""`robustok encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from robustok_core.values.terminal import echo


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("--batch-size", default=50, show_default=True, type=click.IntRange(1), help="Images per batch.")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
@click.option("--ignore-exif", is_flag=True, help="Do not turn images upright as their EXIF data say.")
@click.option(
    "--on-bad-file",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    show_default=True,
    help="What to do about a damaged image: stop, or leave it out and count it.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New .npz file.")
def encode(
    run: Path,
    inputs: tuple[Path, ...],
    batch_size: int,
    device: str | None,
    ignore_exif: bool,
    on_bad_file: str,
    out: Path,
) -> None:
    """Encode images with the tokenizer of a RUN (a run's or an artifact's folder).

    INPUT is an image or a folder of images, which are cropped as in training. OUT holds `codes` (n, N), or in a
    continuous latent space `vectors` (n, N, D), and `names`, the images' paths within their folder.
    """
    import numpy as np

    from robustok_core.errors import RobustokError
    from robustok_core.runs.devices import device_called
    from robustok_core.runs.files import new_file
    from robustok_core.runs.fingerprints import latent_fingerprint
    from robustok_toolkit.cropped_images import images_in, without_damaged
    from robustok_toolkit.latent_arrays import array_name, to_array
    from robustok_toolkit.new_files import new_output, require_new
    from robustok_toolkit.trained_tokenizer import tokenizer_of

    require_new(out)
    if out.suffix != ".npz":
        raise RobustokError("the name of the file must end in .npz", where=f"--out {out}")
    found = images_in(inputs)
    files, notes = found.files, found.notes
    if on_bad_file == "skip":
        files, damaged = without_damaged(files)
        notes += damaged
    for note in notes:
        echo(note, err=True)
    trained = tokenizer_of(run, device=device_called(device, where="--device"))
    space = trained.tokenizer.space
    encoded = trained.encoded(list(files.values()), batch_size=batch_size, exif=not ignore_exif)
    codes = np.concatenate([to_array(latents, space, maker="encoder", where=str(run)) for latents in encoded])
    arrays: dict[str, Any] = {array_name(space): codes, "names": np.array(list(files))}
    with new_output(out) as unfinished, new_file(unfinished) as aside:
        np.savez(aside, latents_of=np.array(latent_fingerprint(trained.tokenizer)), **arrays)
    echo(f"{len(files)} images written to {out}")
