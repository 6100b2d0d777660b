"""What is known about an artifact before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder

if TYPE_CHECKING:
    from typing_extensions import Self


@frozen(kw_only=True)
class Promise:
    """What a stage declares about its artifact before anything runs. One subclass per kind of artifact.

    The checks of later stages read only promises. An artifact from [load] gives the same promise, read from its files.
    """

    def describe(self) -> str:
        """A short description for `robustok check --show` (the space, the number of images), or ""."""
        return ""

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        """The promise of an existing artifact.

        Args:
            folder: the artifact's folder. registry: builds components on the meta device.

        Raises:
            RobustokError: if the folder does not hold such an artifact.
        """
        raise RobustokError(f"a {cls.__name__} cannot be read from files", where=str(folder))
