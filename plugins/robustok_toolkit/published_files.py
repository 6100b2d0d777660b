"""Tables of published files that importers read: one TOML file a plugin."""

from __future__ import annotations

from pathlib import Path

import tomli
from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import Registry
from robustok_core.runs.records import record_of

#: The importer of files that cannot be read.
NO_IMPORTER = "none"
_UNKNOWN = "unknown"
_positive = validators.optional(validators.gt(0.0))


@frozen(kw_only=True)
class PublishedFile:
    """A published file.

    Attributes:
        system: the model that it holds. place: "hf://OWNER/REPOSITORY/FILE" or another place, which ends in its name.
        importer: what reads it, or "none". licence: of the code that it belongs to.
        parameters: of the model, in millions; None if not known. num_bytes: of the file; None if not known.
    """

    system: str
    place: str
    importer: str
    licence: str
    parameters: float | None
    num_bytes: int | None

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.place.rsplit("/", 1)[-1].rsplit(": ", 1)[-1]

    @property
    def size(self) -> str:
        """ "172.3 M parameters, 2.1 GB", as far as it is known."""
        known = [] if self.parameters is None else [f"{self.parameters:,} M parameters"]
        known += [] if self.num_bytes is None else [f"{self.num_bytes / 1e9:.2f} GB"]
        return ", ".join(known) or "size unknown"


@frozen(kw_only=True)
class _Entry:
    """A file of a system; what is None is as the system says."""

    place: str
    parameters: float | None = field(default=None, validator=_positive)
    num_bytes: int | None = field(default=None, validator=validators.optional(validators.gt(0)))


@frozen(kw_only=True)
class _System:
    name: str
    importer: str
    files: list[_Entry]
    licence: str = _UNKNOWN
    parameters: float | None = field(default=None, validator=_positive)


@frozen(kw_only=True)
class _Table:
    system: list[_System]


def read_published_files(table: Path) -> list[PublishedFile]:
    """The files that a TOML file lists.

    Raises:
        RobustokError: it is damaged.
    """
    try:
        content = tomli.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RobustokError(f"this list of published files cannot be read: {error}", where=str(table)) from error
    return [
        PublishedFile(
            system=system.name,
            place=file.place,
            importer=system.importer,
            licence=system.licence,
            parameters=file.parameters or system.parameters,
            num_bytes=file.num_bytes,
        )
        for system in record_of(_Table, content, table).system
        for file in system.files
    ]


def published_files(registry: Registry) -> list[PublishedFile]:
    """The files that all plugins list.

    Raises:
        RobustokError: a list is damaged, or a plugin fails.
    """
    found = []
    for plugin, table in registry.answers("robustok_published_files").items():
        if not isinstance(table, Path):
            what = f"robustok_published_files of the plugin {plugin!r} must return a Path, found {type(table).__name__}"
            raise RobustokError(what)
        found += read_published_files(table)
    return found
