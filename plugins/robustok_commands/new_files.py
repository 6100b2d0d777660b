"""Where commands may write: nothing is overwritten, and a name says what kind of file it is."""

from __future__ import annotations

from pathlib import Path


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
