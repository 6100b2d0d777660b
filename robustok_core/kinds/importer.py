"""Import and export of published checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder, Component


class Importer(Component, ABC):
    """Turns a published checkpoint into a component. Built as `Importer(config)`."""

    makes: ClassVar[Literal["tokenizer", "generator"]]

    @abstractmethod
    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        """Reads a file and builds the component through the registry.

        `robustok_toolkit.weight_files.read_weights` reads any kind of weight file, and the index of several.

        Returns:
            The component's recipe table (with `use`), the component with its weights, and a report that maps each
            dropped key to the reason.
        """

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The component's weights under the published names.

        Raises:
            RobustokError: if the published format cannot hold this component.
        """
        raise RobustokError(f"the importer {type(self).__name__} cannot export")
