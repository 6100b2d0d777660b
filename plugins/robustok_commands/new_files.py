"""Checks of the output paths of commands: nothing is overwritten, and the ending says what kind of file it is."""

from __future__ import annotations

from pathlib import Path


def refuse_existing(out: Path) -> None:
    """Refuses to overwrite.

    Raises:
        RobustokError: if the file or folder exists.
    """
    from robustok_core.errors import RobustokError

    if out.exists():
        raise RobustokError("this already exists", where=str(out), hint="nothing is overwritten: choose a new name")


def refuse_other_endings(out: Path, *endings: str) -> None:
    """Refuses a name with the ending of another kind of file (.gif), which would otherwise name a folder.

    A folder's name may end in a number (guided-1.5).

    Raises:
        RobustokError: if the name has such an ending.
    """
    from robustok_core.errors import RobustokError

    if out.suffix and out.suffix not in endings and not out.suffix[1:].isdigit():
        hint = f"a file ends in {' or '.join(endings)}, and a folder has no such ending"
        raise RobustokError(f"cannot write {out.suffix} files", where=f"--out {out}", hint=hint)
