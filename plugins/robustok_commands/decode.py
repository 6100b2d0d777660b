"""`robustok decode`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from robustok_core.values.terminal import echo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustok_core.kinds.tokenizer import Tokenizer
    from robustok_core.values.latents import Latents

_COLUMNS = 8
_HINT = "`robustok encode` writes such a file"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("codes", type=click.Path(path_type=Path))
@click.option("--batch-size", default=50, show_default=True, type=click.IntRange(1), help="Images per batch.")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder or GRID.png.")
def decode(run: Path, codes: Path, batch_size: int, device: str | None, out: Path) -> None:
    """Decode CODES, a file from `robustok encode`, with the tokenizer of a RUN (a run's or an artifact's folder).

    CODES may also be a single array: the codes.npy beside a run's samples. OUT is a new folder of PNG files with the
    names of the encoded images, or one GRID.png of all images.
    """
    from robustok_core.runs.devices import device_called
    from robustok_toolkit.new_files import new_output, refuse_other_endings, require_new
    from robustok_toolkit.trained_tokenizer import tokenizer_of

    require_new(out)
    refuse_other_endings(out, ".png")
    trained = tokenizer_of(run, device=device_called(device, where="--device"))
    latents, names = _read(codes, trained.tokenizer)
    batches = trained.decoded(latents, batch_size=batch_size)
    pictures = (picture for batch in batches for picture in batch.permute(0, 2, 3, 1).contiguous().cpu().numpy())
    with new_output(out) as unfinished:
        _write(unfinished, pictures, names)
    echo(f"{len(names)} images written to {out}")


def _read(file: Path, tokenizer: Tokenizer) -> tuple[Latents, list[PurePosixPath]]:
    """The latents in a file, and the names of the images to save.

    Raises:
        RobustokError: if the file does not hold latents, or they are from another tokenizer.
    """
    import numpy as np

    from robustok_core.errors import RobustokError
    from robustok_core.runs.fingerprints import latent_fingerprint
    from robustok_toolkit.latent_arrays import array_name, from_array

    array = array_name(tokenizer.space)
    arrays = _arrays(file, array)
    latents = from_array(arrays[array], tokenizer.space, str(file))
    if len(latents) == 0:
        raise RobustokError("there are no images in this file", where=str(file))
    fingerprint = latent_fingerprint(tokenizer)
    recorded = str(arrays.get("latents_of", np.array(fingerprint)))
    if recorded != fingerprint:
        what = f"these latents are from another tokenizer ({recorded}, not {fingerprint})"
        raise RobustokError(what, where=str(file), hint="decode with the tokenizer that encoded them")
    names = arrays.get("names", np.array([f"{number:06d}.png" for number in range(len(latents))]))
    return latents, _names(names, len(latents), str(file))


def _arrays(file: Path, name: str) -> dict[str, NDArray[Any]]:
    """The array of latents called `name` and what is beside it in a .npz file; a .npy file holds the latents alone."""
    from robustok_core.errors import RobustokError
    from robustok_toolkit.array_files import array_names, is_single_array, read_array, read_arrays

    if is_single_array(file):
        return {name: read_array(file, hint=_HINT)}
    arrays = read_arrays(file, [name, "latents_of", "names"], hint=_HINT)
    if name not in arrays:
        others = f"; it has {', '.join(there)}" if (there := array_names(file)) else ""
        raise RobustokError(f"this file has no array {name!r}{others}", where=str(file), hint=_HINT)
    return arrays


def _names(names: NDArray[np.str_], count: int, where: str) -> list[PurePosixPath]:
    """Paths of PNG files within a folder: the ending of each name is replaced by .png.

    If two names differ only in their ending, or one would be that of another's folder, .png is added to all names
    instead.

    Raises:
        RobustokError: if there are not `count` different names, or one is not a path within the folder.
    """
    from robustok_core.errors import RobustokError

    if names.shape != (count,) or names.dtype.kind != "U":
        raise RobustokError(f"expected {count} names, found an array {names.dtype} {names.shape}", where=where)
    paths = [PurePosixPath(str(name)) for name in names]
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise RobustokError(f"two images are called {str(twice)!r}", where=where)
    for path in paths:
        if not _can_be_encoded(str(path)):
            raise RobustokError(f"no file can be called {str(path)!r}", where=where)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise RobustokError(f"the name {str(path)!r} leads out of the folder", where=where)
    renamed = [path.with_suffix(".png") for path in paths]
    folders = {folder for path in renamed for folder in path.parents}
    if len(set(renamed)) == len(paths) and folders.isdisjoint(renamed):
        return renamed
    return [path.with_name(f"{path.name}.png") for path in paths]


def _can_be_encoded(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _write(out: Path, pictures: Iterable[NDArray[np.uint8]], names: Sequence[PurePosixPath]) -> None:
    from robustok_core.runs.files import new_folder
    from robustok_toolkit.pictures import save_grid, save_png

    if out.suffix == ".png":
        save_grid(out, list(pictures), _COLUMNS)
        return
    with new_folder(out) as aside:
        for name, picture in zip(names, pictures, strict=True):
            save_png(aside / name, picture)
