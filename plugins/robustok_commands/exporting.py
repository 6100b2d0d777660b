"""The files of `robustok export`: written aside, read back, and named only if the same model comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_commands.read_back import Found, ReadBack, described
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import Registry, load_registry
from robustok_core.runs.components import load_component, read_component
from robustok_core.runs.files import write_json
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.near_runs import no_run
from robustok_core.runs.old_code import note_old_code
from robustok_core.values.spec import Spec
from robustok_toolkit.new_files import new_output, require_new
from robustok_toolkit.weight_files import check_ending, write_weights

#: The published configuration, which its readers look for beside the weights.
_CONFIGURATION = "config.json"
_PUSH = "; `robustok push RUN OWNER/NAME --to FOLDER` writes any tokenizer"


def write_export(name: str, given: Mapping[str, Any], artifact: Path, out: Path) -> str | None:
    """Writes a component to the new file `out`, in the format of an importer.

    Args:
        name: the importer's. given: its options. artifact: the component's folder, or that of its run.

    Returns:
        What to say of the file: which options an import needs to make the same model of it. None if it needs none.

    Raises:
        RobustokError: the format does not hold the component, or not as it is, or a file exists.
    """
    require_new(out)
    if not artifact.exists():
        raise no_run(artifact)
    registry = load_registry()
    importer = registry.spec("importer", {"use": name, **given}, where=name)
    if importer.factory.makes is None:
        raise RobustokError(f"the importer {name!r} cannot export", hint="name the one whose format is wanted")
    folder = find_artifact(artifact, importer.factory.makes)
    check_ending(out)
    with contextlib.ExitStack() as outputs:
        built = importer.build()
        back, unfinished = _write_aside(registry, importer, built, given, folder, out, outputs)
        found = back.find(unfinished, built.noted)
        if found.differences:
            raise _other_model(importer, folder, found)
    if found.unreadable is not None:
        return (
            f"note: {out} was not compared with {folder}, for the importer {importer.name} cannot read it as it is: "
            f"{found.unreadable}\n  {_options(importer)}: export with --set NAME=VALUE to compare it"
        )
    if not found.added:
        return None
    named = ", ".join(found.added)
    return (
        f"note: the format of {importer.name} does not hold {named}; import it with\n  {back.words(out, found.added)}"
    )


def _write_aside(
    registry: Registry,
    importer: Spec,
    built: Any,
    given: Mapping[str, Any],
    folder: Path,
    out: Path,
    outputs: contextlib.ExitStack,
) -> tuple[ReadBack, Path]:
    """Writes the files where they take their names when `outputs` is left; returns what reads them, and the weights.

    The component is out of memory when this is done.
    """
    module = load_component(registry, folder)
    note_old_code(registry, folder)
    try:
        weights, configuration = _exported(built, module)
    except RobustokError as error:
        raise RobustokError(error.what, where=str(folder), hint=_other_formats(registry, folder, module)) from error
    if configuration is not None:
        beside = out.with_name(_CONFIGURATION)
        require_new(beside, do="this file goes beside the weights, so write them to another folder")
        write_json(outputs.enter_context(new_output(beside)), configuration)
    unfinished = outputs.enter_context(new_output(out))
    write_weights(unfinished, weights)
    if configuration is not None:
        write_json(unfinished.with_name(_CONFIGURATION), configuration)  # where the importer looks for it
    return ReadBack(registry, importer, given, folder, module), unfinished


def _exported(built: Any, module: nn.Module) -> tuple[Mapping[str, Tensor], Mapping[str, Any] | None]:
    """The weights and config.json of a component in an importer's format."""
    return built.export(module), built.configuration(module)


def _other_model(importer: Spec, folder: Path, found: Found) -> RobustokError:
    what = f"the format of {importer.name} does not hold this {importer.factory.makes} as it is, and another one comes"
    push = _PUSH if importer.factory.makes == "tokenizer" else ""
    return RobustokError(
        f"{what} back: {described(found.differences)}",
        where=str(folder),
        hint=f"nothing was written; {_options(importer)}, which --set NAME=VALUE gives{push}",
    )


def _options(importer: Spec) -> str:
    return f"`robustok plugins importer {importer.name}` lists the options of imports"


def _other_formats(registry: Registry, folder: Path, module: nn.Module) -> str:
    """The hint for a component that a format cannot hold: what it is, and whose format can."""
    record, able = read_component(folder), []
    for entry in registry.entries("importer"):
        if entry.factory.makes == record.kind:
            try:
                _exported(registry.spec("importer", {"use": entry.name}).build(), module)
            except RobustokError:
                continue
            able.append(entry.name)
    kind = record.use
    if isinstance(quantizer := record.table.get("quantizer"), dict):
        kind += f" with the quantizer {quantizer.get('use')}"
    formats = f"formats that hold it: {', '.join(able)}" if able else "no importer's format holds it"
    push = _PUSH if record.kind == "tokenizer" else ""
    return f"this {record.kind} is {kind}; {formats}{push}"
