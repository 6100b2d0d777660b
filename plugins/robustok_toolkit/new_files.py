"""The output paths of commands: nothing is overwritten, and the ending says what kind of file it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustok_core.errors import RobustokError, RunError


def require_new(out: Path, *, do: str = "choose a new name") -> None:
    """Refuses to overwrite, and what cannot be written, before a command works for it.

    Args:
        do: what the user is to do if `out` exists, for the message.

    Raises:
        RobustokError: if the file or folder exists, or as `require_place`.
    """
    if os.path.lexists(out):
        raise RobustokError("this already exists", where=str(out), hint=f"nothing is overwritten: {do}")
    require_place(out)


def require_place(out: Path) -> None:
    """Refuses a file or folder that could not be written.

    Raises:
        RobustokError: if one of its parents is a file, or a folder that this user may not write to.
    """
    there = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not there.is_dir():
        raise RobustokError(f"cannot write: {there} is no folder", where=str(out), hint="choose another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RobustokError("cannot write: Permission denied", where=str(out), hint="choose a folder you may write to")


@contextmanager
def new_output(out: Path) -> Iterator[Path]:
    """Gives the path, of the same name, at which to write a file or folder; it becomes `out` when the block ends.

    A command that worked for hours may find that another has taken the name meanwhile: both are kept. Commands that
    write to the same name at the same time are kept apart.

    Raises:
        RunError: if `out` exists when the block ends; what was written is then beside it, with a number.
    """
    from robustok_core.runs.files import move_beside, own_folder

    with own_folder(out) as folder:
        yield folder / out.name
        made = move_beside(folder / out.name, out)
    if made != out:
        hint = f"nothing is overwritten: what this command made is in {made}"
        raise RunError("something else was written here meanwhile", where=str(out), hint=hint)


def refuse_other_endings(out: Path, *endings: str) -> None:
    """Refuses a name with the ending of another kind of file (.gif), which would otherwise name a folder.

    A folder's name may end in a number (guided-1.5).

    Raises:
        RobustokError: if the name has such an ending.
    """
    if out.suffix and out.suffix not in endings and not out.suffix[1:].isdigit():
        hint = f"a file ends in {' or '.join(endings)}, and a folder has no such ending"
        raise RobustokError(f"cannot write {out.suffix} files", where=f"--out {out}", hint=hint)
