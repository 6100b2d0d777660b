"""What every kind of component has in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from robustok_core.kinds.boundary import Boundary
from robustok_core.values.download import Download
from robustok_core.values.spec import Spec, specs_in


class Component(Boundary):
    """Anything that a recipe table with `use` can build.

    Attributes:
        also_called: other common names of it, for the hint where a recipe uses one of them.
    """

    Config: ClassVar[type]
    also_called: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def downloads(cls, config: Any) -> Iterable[Download]:
        """What it gets from the network when it is built, present or not; it is not built for this.

        Those of its `parts` are added. Files of the user that options name (`files`) are checked here: see
        `local_file`.

        Args:
            config: an instance of `Config`.

        Raises:
            RobustokError: if a file that an option names, or a package, is missing.
        """
        return ()

    @classmethod
    def files(cls, config: Any) -> Iterable[Path]:
        """The files and folders of the user that its options name, whether they exist or not; it is not built for this.

        Their content is part of the fingerprint of every stage that uses it, so the stage runs again where it changes.
        Those of its `parts` are added.

        Args:
            config: an instance of `Config`.
        """
        return ()

    @classmethod
    def parts(cls, config: Any) -> Iterable[tuple[tuple[str, ...], Spec]]:
        """The components in its options that it builds, with their paths of keys; all of them, unless it says so."""
        return specs_in(config)


class Builder(Protocol):
    """The view of the registry that components get: it builds other components."""

    def spec(self, kind: str, table: Mapping[str, Any]) -> Spec:
        """Checks the component that a recipe table describes, without building it."""

    def build(self, kind: str, table: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Builds the component that a recipe table describes."""

    def classes(self, kind: str) -> Mapping[str, Any]:
        """The classes of a kind by name."""
