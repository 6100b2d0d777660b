"""Import and export of published checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Builder, Component
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer


def _imported(call: Call, result: Any, *_: Any, **__: Any) -> None:
    whole = isinstance(result, tuple) and len(result) == 3
    call.require(whole, "`load` must return the component's table, the component and a report")
    table, module, report = result
    call.require(isinstance(table, Mapping) and "use" in table, "the table of `load` must name the component in `use`")
    kinds = {"tokenizer": (Tokenizer,), "generator": (Generator,), None: (Tokenizer, Generator)}[call.component.makes]
    named = " or ".join(kind.__name__ for kind in kinds)
    call.require(isinstance(module, kinds), f"`load` must return a {named}, found {type(module).__name__}")
    is_text = isinstance(report, Mapping) and all(isinstance(text, str) for pair in report.items() for text in pair)
    call.require(is_text, "the report must map dropped keys to reasons, both strings")


def _opponents(call: Call, result: Any, *_: Any, **__: Any) -> None:
    is_named = isinstance(result, Mapping) and all(isinstance(value, Tensor) for value in result.values())
    call.require(is_named, "`opponents` must return tensors by name")
    prefixes = all(name.startswith(("module/", "optimizer/")) and name.count("/") >= 2 for name in result)
    call.require(prefixes, "the names of `opponents` must be module/LOSS/... and optimizer/LOSS/...")


class Importer(Component, ABC):
    """Turns a published checkpoint into a component. Built as `Importer(config)`.

    Attributes:
        makes: what it makes; None if only a file tells.
        recognised_by: names of weights that all its files have, and that no other importer's files have together. The
            importer `auto` chooses by them.
        chosen: the name of the importer that this one left the last file to; None if it read it itself.
        noted: options of an import that the last `export` has printed as needed, since the format does not hold them.
            Others that are needed `robustok export` finds by their names, and prints: an option of the importer is
            the component's of the same name, or, with `metadata={"says": (NAME, VALUE)}`, says that NAME is VALUE.
    """

    returns: ClassVar = {"load": _imported, "opponents": _opponents}
    makes: ClassVar[Literal["tokenizer", "generator"] | None]
    recognised_by: ClassVar[Collection[str]] = ()
    chosen: str | None = None
    noted: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        """Reads a file and builds the component through the registry.

        `robustok_toolkit.weight_files.read_weights` reads any kind of weight file, and the index of several.

        Returns:
            The component's recipe table (with `use`), the component with its weights, and a report that maps each
            dropped key to the reason.
        """

    def also_reads(self, path: Path) -> Sequence[Path]:
        """Existing files that `load` reads besides the checkpoint, such as a configuration beside it.

        What [load] took is known by the content of all of them.
        """
        return ()

    def opponents(self, path: Path) -> Mapping[str, Tensor]:
        """The discriminators in the file of a tokenizer, for reuse in post-training; empty if it has none.

        Returns:
            The weights of the opponent of the loss LOSS as `module/LOSS/NAME`, and the state of its optimiser, as far
            as the file has it, as `optimizer/LOSS/KEY/opponent.NAME`.
        """
        return {}

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The component's weights under the published names.

        Raises:
            RobustokError: if the published format cannot hold this component.
        """
        raise RobustokError(f"the importer {type(self).__name__} cannot export")

    def configuration(self, component: nn.Module) -> Mapping[str, Any] | None:
        """The published config.json of a component, which belongs beside its exported weights; None if there is none.

        Raises:
            RobustokError: if the published format cannot hold this component.
        """
        return None
