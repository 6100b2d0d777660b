"""What is known about an artifact before anything runs.

An origin says which tokenizer or generator something is made with. It has one of three forms:

- a hash, where the weights exist: their content hash, or a tokenizer's latent fingerprint;
- "stage NAME" (`origin_of`), where a stage of the recipe makes the component, or changes its weights last;
- `LOADED`, where the component comes from [load] and its weights are not known yet.

The last two mean something within their own recipe only (`is_local`), and cannot be compared with a hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen
from torch import nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder

if TYPE_CHECKING:
    from typing_extensions import Self

PromiseT = TypeVar("PromiseT", bound="Promise")


#: The origin of an artifact from [load] whose weights are not known yet.
LOADED = "loaded"

_STAGE = "stage "


def origin_of(stage: str | None) -> str | None:
    """The origin of what a stage of the recipe makes; None if no stage does."""
    return None if stage is None else f"{_STAGE}{stage}"


def is_local(origin: str) -> bool:
    """Whether an origin means something within its own recipe only."""
    return origin == LOADED or origin.startswith(_STAGE)


def known_elsewhere(origin: str | None) -> str | None:
    """An origin as other recipes see it; None if it is not known, or means something within its own recipe only."""
    return None if origin is None or is_local(origin) else origin


def once_made_elsewhere(made_of: Mapping[str, str]) -> dict[str, str]:
    """What something is made of as other recipes see it: `LOADED` for what they do not know."""
    return {kind: known_elsewhere(origin) or LOADED for kind, origin in made_of.items()}


@frozen(kw_only=True)
class Promise:
    """What a stage declares about its artifact before anything runs. One subclass per kind of artifact.

    The checks of later stages read only promises. An artifact from [load] gives the same promise, read from its files.
    """

    def describe(self) -> str:
        """A short description for `robustok check --show` (the space, the number of images), or ""."""
        return ""

    def read(self, kind: type[PromiseT]) -> PromiseT:
        """This promise as the kind that a later stage reads.

        Raises:
            RobustokError: if it is a promise of another kind.
        """
        if not isinstance(self, kind):
            what = f"its `plan` promises a {type(self).__name__}, but a {kind.__name__} is needed"
            raise RobustokError(what, hint=f"return a {kind.__name__} (from {kind.__module__}) from `plan`")
        return self

    def once_loaded(self) -> Self:
        """This promise as another recipe sees it, which will load the artifact once it is made.

        A promise that says which stage makes its artifact, or another one that it is made of, must say it no longer:
        the name of a stage means nothing in another recipe. The origin of what it is made of becomes `LOADED`.
        """
        return self

    @classmethod
    def of_component(cls, component: nn.Module, table: Mapping[str, Any]) -> Self:
        """The promise of a component in memory, which an importer read from a published checkpoint.

        Args:
            component: with its weights. table: its recipe table.

        Raises:
            RobustokError: if this is not the promise of a component.
        """
        raise RobustokError(f"a {cls.__name__} is not the promise of a published checkpoint")

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        """The promise of an existing artifact.

        Args:
            folder: the artifact's folder. registry: builds components on the meta device.

        Raises:
            RobustokError: if the folder does not hold such an artifact.
        """
        raise RobustokError(f"a {cls.__name__} cannot be read from files", where=str(folder))
