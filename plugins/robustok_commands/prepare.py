"""`robustok prepare`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustok_core.values.terminal import echo, echo_lines, make_console

if TYPE_CHECKING:
    from robustok_core.values.spec import Spec


@click.command()
@click.argument("data")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. data.image_size=128.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["npy", "webp"]),
    default="npy",
    show_default=True,
    help="Pixels as they are (fastest), or lossless WebP (about half as large).",
)
@click.option(
    "--shard-size", default=256, show_default=True, type=click.IntRange(1, 2**20), help="MiB of pixels in a shard."
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="Images decoded at once; default: one for each core."
)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
def prepare(
    data: str, out: Path, changes: tuple[str, ...], image_format: str, shard_size: int, threads: int | None, quiet: bool
) -> None:
    """Crop the images of DATA once, and store them in the folder OUT for the data set `prepared`.

    DATA is a recipe, of which the table [data] is read, or a folder of images (`image_folder`). Trainings from OUT are
    the same, bit for bit, as from the images themselves with centre crops, and do not wait for JPEG files to be
    decoded.

    A stopped command goes on when it is given again; given once more, it verifies OUT and makes damaged shards again.
    Example: `robustok prepare main_train cropped`.
    """
    from robustok_toolkit.preparing import Preparation, describe, only_mirrors

    spec = _data_of(data, changes)
    dataset = spec.build()
    mirrors = only_mirrors(dataset.train)
    console = None if quiet else make_console(err=True)
    Preparation(
        dataset=dataset,
        prepared=describe(dataset, spec.name, "npy" if image_format == "npy" else "webp", shard_size * 2**20),
        folder=out,
        say=lambda line: None if quiet else echo(line),
        console=console,
        threads=threads or min(32, len(os.sched_getaffinity(0))),
    ).run()
    if not quiet:
        echo(f"complete and verified: {out}; a recipe reads it with")
        echo_lines(_table(out, mirrors))


def _data_of(data: str, changes: tuple[str, ...]) -> Spec:
    """The data set of a recipe or of a run, or the folder of images that is called so."""
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.recipe.source import Source, override
    from robustok_core.runs.history import RECIPE_FILE
    from robustok_core.runs.opening import open_recipe
    from robustok_core.runs.run_record import is_run

    registry, path = load_registry(), Path(data)
    if path.is_dir() and not is_run(path) and not (path / RECIPE_FILE).is_file():
        source = override(Source({"data": {"use": "image_folder", "path": data}}, {("data",): data}), changes)
        if other := sorted(source.table.keys() - {"data"}):
            what = f"a folder of images has no key {other[0]!r}"
            hint = "its options are those of `image_folder`, as --set data.image_size=64"
            raise RobustokError(what, where="--set", hint=hint)
        return registry.spec("dataset", source.table["data"], where="data")
    tables = open_recipe(data, overrides=changes)[0].resolve(registry).tables
    if "data" not in tables:
        raise RobustokError("this recipe has no table [data]", where=data)
    return tables["data"]


def _table(out: Path, mirrors: bool) -> str:
    """The table [data] of a recipe that reads the folder."""
    import tomli_w

    table = {"use": "prepared", "path": str(out.absolute()), **({"flip": True} if mirrors else {})}
    return tomli_w.dumps({"data": table}).rstrip("\n")
