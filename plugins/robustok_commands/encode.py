"""`robustok encode`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import Tensor


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("--batch-size", default=50, show_default=True, type=click.IntRange(1), help="Images at once.")
@click.option("--device", metavar="NAME", help="Where it computes; the GPU if left out and there is one.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New .npz file.")
def encode(run: Path, inputs: tuple[Path, ...], batch_size: int, device: str | None, out: Path) -> None:
    """Encode images with the tokenizer of a RUN (its folder, or an artifact's).

    INPUT is an image or a folder of images, which are cropped as in training. OUT holds `codes` (n, N), or
    `vectors` (n, N, D) where the latent space is continuous, and `names`, the images' paths in their folder.
    """
    import numpy as np
    import torch

    from robustok_commands.trained import artifact_of, device_called, load, refuse_existing
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.files import new_file
    from robustok_core.runs.fingerprints import latent_fingerprint
    from robustok_toolkit.latent_arrays import array_name, to_array

    refuse_existing(out)
    if out.suffix != ".npz":
        raise RobustokError("the name of the file must end in .npz", where=f"--out {out}")
    files = _images(inputs)
    place = device_called(device)
    tokenizer = load(load_registry(), artifact_of(run, "tokenizer"), place)
    found = []
    with torch.no_grad():
        for batch in _batches(list(files.values()), tokenizer.image_size, batch_size):
            found.append(to_array(tokenizer.encode(batch.to(place)), tokenizer.space, maker="encoder", where=str(run)))
    arrays: dict[str, Any] = {array_name(tokenizer.space): np.concatenate(found), "names": np.array(list(files))}
    with new_file(out) as aside:
        np.savez(aside, latents_of=np.array(latent_fingerprint(tokenizer)), **arrays)
    click.echo(f"{len(files)} images written to {out}")


def _images(inputs: Sequence[Path]) -> dict[str, Path]:
    """The image files by name: their path within the folder that was given."""
    from robustok_core.errors import RobustokError

    found: dict[str, Path] = {}
    for given in inputs:
        for name, file in _images_of(given):
            if name in found:
                hint = "encode them one after another, or give the folder that holds both"
                raise RobustokError(f"two images are called {name!r}: {found[name]} and {file}", hint=hint)
            found[name] = file
    return found


def _images_of(given: Path) -> Iterator[tuple[str, Path]]:
    from robustok_core.errors import RobustokError
    from robustok_toolkit.image_files import EXTENSIONS

    if given.is_file():
        yield given.name, given
        return
    if not given.is_dir():
        raise RobustokError("there is no such file or folder", where=str(given))
    inside = (file.relative_to(given) for file in given.rglob("*") if file.suffix.lower() in EXTENSIONS)
    names = sorted(name for name in inside if not any(part.startswith(".") for part in name.parts))
    if not names:
        hint = f"images end in {', '.join(sorted(EXTENSIONS))}"
        raise RobustokError("there are no images in this folder", where=str(given), hint=hint)
    yield from ((name.as_posix(), given / name) for name in names)


def _batches(files: Sequence[Path], size: int, batch_size: int) -> Iterator[Tensor]:
    """(b, 3, size, size) float32 in [-1, 1]."""
    import torch

    from robustok_core.values.images import from_uint8

    for start in range(0, len(files), batch_size):
        yield from_uint8(torch.stack([_pixels(file, size) for file in files[start : start + batch_size]]))


def _pixels(file: Path, size: int) -> Tensor:
    """(3, size, size) uint8: ADM's centre crop.

    Raises:
        RobustokError: the file is no image that can be read.
    """
    import numpy as np
    import torch
    from PIL import Image

    from robustok_core.errors import RobustokError
    from robustok_toolkit.crops import as_rgb, center_crop

    try:
        with Image.open(file) as opened:
            picture = as_rgb(opened)
    except Exception as error:  # Pillow raises many types for a broken file; all mean that it is one
        raise RobustokError(f"this image cannot be read: {error}", where=str(file)) from error
    return torch.from_numpy(np.array(center_crop(picture, size))).permute(2, 0, 1)
