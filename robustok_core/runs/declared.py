"""What a stage may touch: the tables and artifacts that its class declares. Its fingerprint covers only these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from robustok_core.errors import did_you_mean, misspelt
from robustok_core.kinds import TABLES
from robustok_core.kinds.boundary import BrokenPromise
from robustok_core.kinds.stage import Stage, tables_of


@frozen
class Declared:
    """What the class of a stage declares.

    Attributes:
        stage: the stage's name in the recipe. kind: its class.
    """

    stage: str
    kind: type[Stage]

    def require_table(self, table: str) -> None:
        """Raises BrokenPromise unless the stage may read a top-level table."""
        if table in tables_of(self.kind):
            return
        if table not in TABLES:
            self._refuse(f"asks for a table [{table}], which no recipe has", did_you_mean(table, list(TABLES)))
        hint = f"add {table!r} to `uses`, or to `may_use` if a recipe may leave it out; else the stage would not run "
        hint += "again when the table changes"
        self._refuse(f"reads the table [{table}], which its class names neither in `uses` nor in `may_use`", hint)

    def require_need(self, artifact: str) -> None:
        """Raises BrokenPromise unless the stage may read an artifact."""
        if artifact not in self.kind.needs:
            hint = _declare(artifact, "needs", self.kind.needs)
            self._refuse(f"reads the artifact {artifact!r}, which its class does not name in `needs`", hint)

    def require_made(self, artifact: str, fingerprint: str) -> None:
        """Raises BrokenPromise unless the stage may make an artifact now; in `check` and `plan`, fingerprint is ""."""
        if artifact not in self.kind.makes:
            hint = _declare(artifact, "makes", self.kind.makes)
            self._refuse(f"makes the artifact {artifact!r}, which its class does not name in `makes`", hint)
        if not fingerprint:
            self._refuse(f"makes the artifact {artifact!r} before the run begins", "make it in `run` only")

    def _refuse(self, what: str, hint: str) -> None:
        where = f"{self.kind.__module__}.{self.kind.__qualname__}"
        raise BrokenPromise(f"stage {self.stage!r} {what}", where=where, hint=hint)


class Inputs(dict[str, Path]):
    """The folders of a stage's inputs by name; one that is not there is refused with the reason."""

    def __init__(self, folders: Mapping[str, Path], declared: Declared) -> None:
        super().__init__(folders)
        self._declared = declared

    def __missing__(self, artifact: str) -> Path:
        self._declared.require_need(artifact)
        what = f"stage {self._declared.stage!r} reads the files of {artifact!r} before the run begins"
        raise BrokenPromise(what, hint="read `context.promise` in `check` and `plan`, and files in `run` only")


def _declare(name: str, attribute: str, declared: Sequence[str]) -> str:
    """The hint for a name that a class does not declare: it is misspelt, or must be added."""
    close, add = misspelt(name, declared), f"add {name!r} to `{attribute}`"
    return f"{close} Else {add}" if close else add
