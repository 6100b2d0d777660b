"""The commit of robustok's source: that of its checkout, or the one that was recorded when it was built.

The build (`hatch_build.py`) runs this file by itself, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

#: In the package, where it was built from a checkout.
COMMIT_FILE = "commit.txt"


def git_commit() -> str | None:
    """The commit of this code, with "+" if tracked files had changes; None if it is not known."""
    package = Path(__file__).resolve().parents[1]
    try:
        return commit_of_checkout(package) or (package / COMMIT_FILE).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def commit_of_checkout(package: Path) -> str | None:
    """The commit of the checkout of robustok that holds this package; None outside one.

    It ends in "+" if files that git tracks have changes. Files that it does not track do not count.

    A repository that merely surrounds an installed robustok, such as a project with its environment inside, does not
    count: its commit says nothing about this code.
    """
    file = package / "runs" / Path(__file__).name
    tracked = _git(package, "ls-files", "--error-unmatch", "--", str(file))
    top = _git(package, "rev-parse", "--show-toplevel")
    if tracked is None or top is None or Path(top).resolve() != package.parent:
        return None
    commit = _git(package, "rev-parse", "--short", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    return None if not commit or changes is None else commit + ("+" if changes else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if it fails or there is no git."""
    # inside a hook of git, GIT_DIR names the repository of the hook
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    surroundings["GIT_OPTIONAL_LOCKS"] = "0"  # so that `status` does not write the index of the user's checkout
    try:
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=5,
            env=surroundings,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None
