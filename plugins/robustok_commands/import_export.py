"""`robustok import` and `robustok export`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustok_core.values.terminal import echo, echo_json

if TYPE_CHECKING:
    from robustok_core.recipe.registry import Registry


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
    """
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.recipe.source import parse_override
    from robustok_core.runs.components import load_component
    from robustok_core.runs.files import write_json
    from robustok_core.runs.folder import find_artifact
    from robustok_core.runs.near_runs import no_run
    from robustok_core.runs.old_code import note_old_code
    from robustok_toolkit.new_files import new_output, require_new
    from robustok_toolkit.weight_files import check_ending, write_weights

    require_new(out)
    if not artifact.exists():
        raise no_run(artifact)
    registry = load_registry()
    options = dict(parse_override(change) for change in changes)
    spec = registry.spec("importer", {"use": importer, **options}, where=importer)
    if spec.factory.makes is None:
        raise RobustokError(f"the importer {importer!r} cannot export", hint="name the one whose format is wanted")
    folder = find_artifact(artifact, spec.factory.makes)
    check_ending(out)
    module = load_component(registry, folder)
    note_old_code(registry, folder)
    beside = out.with_name("config.json")
    try:
        weights, configuration = _exported(spec, module)
    except RobustokError as error:
        raise RobustokError(error.what, where=str(folder), hint=_other_formats(registry, folder, module)) from error
    if configuration is not None:
        require_new(beside, do="this file goes beside the weights, so write them to another folder")
    with contextlib.ExitStack() as outputs:
        if configuration is not None:
            write_json(outputs.enter_context(new_output(beside)), configuration)
        write_weights(outputs.enter_context(new_output(out)), weights)
    echo(f"written to {out}")


def _exported(spec: Any, module: Any) -> tuple[Any, Any]:
    """The weights and config.json of a component in an importer's format."""
    built = spec.build()
    return built.export(module), built.configuration(module)


def _other_formats(registry: Registry, folder: Path, module: Any) -> str:
    """The hint for a component that a format cannot hold: what it is, and whose format can."""
    from robustok_core.errors import RobustokError
    from robustok_core.runs.components import read_component

    record, able = read_component(folder), []
    for entry in registry.entries("importer"):
        if entry.factory.makes == record.kind:
            try:
                _exported(registry.spec("importer", {"use": entry.name}), module)
            except RobustokError:
                continue
            able.append(entry.name)
    kind = record.use
    if isinstance(quantizer := record.table.get("quantizer"), dict):
        kind += f" with the quantizer {quantizer.get('use')}"
    formats = f"formats that hold it: {', '.join(able)}" if able else "no importer's format holds it"
    push = "" if record.kind != "tokenizer" else "; `robustok push RUN OWNER/NAME --to FOLDER` writes any tokenizer"
    return f"this {record.kind} is {kind}; {formats}{push}"
