"""What is known of an artifact before anything runs."""

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
    """What a stage says, before anything runs, that its artifact will be. A subclass for each sort of artifact.

    The checks of later stages read promises and nothing else. An artifact that [load] names gives the same promise,
    read from its files.
    """

    def describe(self) -> str:
        """A few words for `robustok check --show`: the space, how many images; "" where there is nothing to say."""
        return ""

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        """The promise of an artifact that is there.

        Args:
            folder: of the artifact. registry: builds components on the meta device.

        Raises:
            RobustokError: the folder does not hold such an artifact.
        """
        raise RobustokError(f"nothing reads a {cls.__name__} from files", where=str(folder))
