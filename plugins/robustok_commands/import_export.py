"""`robustok import` and `robustok export`."""

from __future__ import annotations

from pathlib import Path

import click

from robustok_core.values.terminal import echo, echo_json, echo_lines


def _list(*, as_json: bool) -> None:
    """Prints the published files that are known: an address a line, never wrapped, under its system."""
    from itertools import groupby

    import attrs

    from robustok_core.recipe.registry import load_registry
    from robustok_toolkit.published_files import NO_IMPORTER, published_files

    files = published_files(load_registry())
    if as_json:
        echo_json([attrs.asdict(file) for file in files])
        return
    for (system, importer, licence), group in groupby(files, lambda file: (file.system, file.importer, file.licence)):
        reader = "no importer" if importer == NO_IMPORTER else f"importer {importer}"
        echo(f"{system}  [{reader}; licence of the code: {licence}]")
        for file in group:
            echo(f"  {file.place}  {file.size}")


@click.command(name="import")
@click.argument("words", nargs=-1, metavar="[IMPORTER] CHECKPOINT OUT")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set an option of the importer.")
@click.option("--list", "listed", is_flag=True, help="List the known files: addresses, sizes, licences and importers.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def import_(words: tuple[str, ...], changes: tuple[str, ...], listed: bool, as_json: bool) -> None:
    """Read a published CHECKPOINT with an IMPORTER and write it as an artifact to the new folder OUT.

    Example: `robustok import robustok main-train.pt tokenizers/robustok`. The folder can be named in a recipe:
    `[load] tokenizer = "tokenizers/robustok"`. CHECKPOINT may be a file on the Hugging Face hub,
    hf://OWNER/REPOSITORY/FILE or hf://OWNER/REPOSITORY/FILE@REVISION. The importer `auto`, which is the one if none is
    named, chooses another one by the names of the weights.
    """
    if listed:
        if words or changes:
            raise click.UsageError("--list takes neither IMPORTER, CHECKPOINT and OUT nor --set")
        _list(as_json=as_json)
        return
    if as_json:
        raise click.UsageError("--json belongs to --list")
    if not 2 <= len(words) <= 3:
        raise click.UsageError("expected [IMPORTER] CHECKPOINT OUT")
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.recipe.source import parse_override
    from robustok_core.runs.hub import local_path
    from robustok_core.runs.loading import read_published, save_imported
    from robustok_toolkit.new_files import new_output, require_new

    importer, checkpoint, out = ("auto", *words)[-3:]
    require_new(Path(out))
    registry = load_registry()
    options = dict(parse_override(change) for change in changes)
    table = {"options": options} if importer == "auto" else options
    spec = registry.spec("importer", {"use": importer, **table}, where=importer)
    file = local_path(checkpoint, None)
    if not file.exists():
        raise RobustokError("there is no such file", where=checkpoint)
    imported = read_published(spec, file, registry)
    for key, value in imported.report.items():
        echo(f"{key}: {value}")
    with new_output(Path(out)) as unfinished:
        save_imported(imported, unfinished)
    echo(f"written to {out}")


@click.command()
@click.argument("importer")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set an option of the importer.")
def export(importer: str, artifact: Path, out: Path, changes: tuple[str, ...]) -> None:
    """Write an ARTIFACT (its folder, or that of its run) to the new file OUT in the published format of an IMPORTER.

    The ending of OUT decides its format: .safetensors, a torch file with the weights under "model" (.pt, .pth), or one
    of the weights alone (.bin). A format with a config.json gets it beside OUT. Example: `robustok export robustok
    tokenizers/robustok again.pt`.

    The file is read back. If options of IMPORTER are needed to get the same model, the command that imports it so is
    printed; if none are enough, nothing is written. If it cannot be read here, a note says so. --set gives options that
    the command cannot find itself.
    """
    from robustok_commands.exporting import write_export
    from robustok_core.recipe.source import parse_override

    note = write_export(importer, dict(parse_override(change) for change in changes), artifact, out)
    if note is not None:
        echo_lines(note, err=True)
    echo(f"written to {out}")
