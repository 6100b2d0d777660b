"""Records the commit in what is built, since an installed robustok has no checkout to ask for it."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RecordCommit(BuildHookInterface):
    """Adds a file with the commit to the package; an editable install asks its checkout instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds."""
        package = Path(self.root).resolve() / "robustok_core"
        source = runpy.run_path(str(package / "runs" / "source_commit.py"))
        commit = None if version == "editable" else source["commit_of_checkout"](package)
        if commit is not None:
            self.folder = tempfile.TemporaryDirectory()
            file = Path(self.folder.name) / source["COMMIT_FILE"]
            file.write_text(commit, encoding="utf-8")
            build_data["force_include"][str(file)] = f"robustok_core/{file.name}"
