"""The steps of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from robustok_core.kinds.component import Component

if TYPE_CHECKING:
    from robustok_core.runs.context import StageContext


class Stage(Component, ABC):
    """One step of a run. Built as `Stage(config)`.

    Attributes:
        uses: top-level tables that it cannot do without ("data", "tokenizer", ...).
        may_use: tables that shape the result where the recipe has them ("perturbation").
        needs: artifacts it reads. makes: artifacts it leaves.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    may_use: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def run(self, context: StageContext) -> Mapping[str, float]:
        """Does the work and returns results by name."""

    def check(self, context: StageContext) -> None:
        """Raises RobustokError where the parts do not fit; called for all stages before any runs."""
