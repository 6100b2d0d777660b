"""What commands take from a trained run: its tokenizer, its generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from robustok_core.recipe.registry import Registry


def artifact_of(run: Path, name: str) -> Path:
    """The folder of an artifact of a run; `run` may also be the folder of another artifact of the same recipe.

    Raises:
        RobustokError: where there is none.
    """
    from robustok_core.errors import RobustokError
    from robustok_core.runs.components import COMPONENT_FILE
    from robustok_core.runs.files import read_json
    from robustok_core.runs.folder import RUN_FILE, find_artifact

    if not run.exists():
        raise RobustokError("there is no such run or artifact", where=str(run), hint="a run's folder is runs/NAME")
    component = run / COMPONENT_FILE
    if not component.is_file() or (kind := read_json(component).get("kind")) == name:
        return find_artifact(run, name)
    whole = run.resolve().parent.parent  # runs/NAME/artifacts/...
    if not (whole / RUN_FILE).is_file():
        what = f"this holds a {kind} alone, and a {name} is needed too"
        raise RobustokError(what, where=str(run), hint=f"name the folder of a run that made or loaded a {name}")
    record, folder = read_json(whole / RUN_FILE), run.resolve()
    made = folder.name.rpartition("-")[2] in record.get("current", {}).values()
    if not made and str(folder) not in record.get("inputs", {}).values():
        what = f"this {kind} is not of the recipe that {whole} holds now, and neither would its {name} be"
        raise RobustokError(what, where=str(run), hint="run the recipe that made it again, under its name or another")
    return find_artifact(whole, name)


def load(registry: Registry, folder: Path, device: torch.device) -> Any:
    """The component of an artifact's folder, in eval mode on a device."""
    from robustok_core.runs.components import load_component

    return load_component(registry, folder).to(device)


def device_called(name: str | None) -> torch.device:
    """The device of a name; the GPU where none is named and there is one.

    Raises:
        RobustokError: there is no such device.
    """
    import torch

    from robustok_core.errors import RobustokError

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RobustokError(f"there is no device {name!r} here", where="--device", hint="cpu always is") from error
    return device


def refuse_existing(out: Path) -> None:
    """Refuses to overwrite.

    Raises:
        RobustokError: the file or folder exists.
    """
    from robustok_core.errors import RobustokError

    if out.exists():
        raise RobustokError("this exists already", where=str(out), hint="nothing is overwritten: choose a new name")


def refuse_other_endings(out: Path, *endings: str) -> None:
    """Refuses a name that ends as a file of another kind does (.gif), which would become a folder's.

    A folder's name may end in a number (guided-1.5).

    Raises:
        RobustokError: the name ends so.
    """
    from robustok_core.errors import RobustokError

    if out.suffix and out.suffix not in endings and not out.suffix[1:].isdigit():
        hint = f"a file ends in {' or '.join(endings)}, a folder in no such ending"
        raise RobustokError(f"nothing is written as {out.suffix}", where=f"--out {out}", hint=hint)
