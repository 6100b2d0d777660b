"""Components on disk: a recipe table and weights, from which a component can be rebuilt anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import field, frozen, validators
from torch import nn

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.generator import Generator
from robustok_core.runs.files import read_tensors, write_json, write_tensors
from robustok_core.runs.records import read_record
from robustok_core.runs.weights import check_weights
from robustok_core.values.ignored import as_it_was_made
from robustok_core.values.latents import LatentSpace

COMPONENT_FILE = "component.json"
WEIGHTS_FILE = "model.safetensors"
#: Discriminators of a tokenizer, and the states of their optimisers.
OPPONENTS_FILE = "opponents.safetensors"
Record = TypeVar("Record")


@frozen(kw_only=True)
class ArtifactRecord:
    """What component.json holds for every artifact: its name, and the recipe table of a component."""

    kind: str
    table: Mapping[str, Any] | None = None


@frozen(kw_only=True)
class ComponentRecord:
    """What component.json holds for a tokenizer or a generator.

    Attributes:
        kind: "tokenizer" or "generator". table: its recipe table, with `use`.
        space, num_classes, class_names: of a generator.
        tokenizer: the latent fingerprint of the tokenizer that a generator was trained with, if it is known.
        opponents: losses whose discriminators are stored with a tokenizer; None if that is not recorded.
        post_trained: the sigma that a tokenizer's decoder was post-trained for last, or None.
        rounds: the sigma of each round of its post-training; None if that is not recorded.
        imported_from: the published checkpoint that it was imported from, or None.
    """

    kind: str
    table: Mapping[str, Any]
    space: LatentSpace | None = None
    num_classes: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    class_names: list[str] | None = None
    tokenizer: str | None = None
    opponents: list[str] | None = None
    post_trained: float | None = None
    rounds: list[float] | None = None
    imported_from: str | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.table.get("use"), str):
            raise ValueError("the key table.use, the name of the component, is missing or no text")
        if self.kind == "generator" and (self.space is None or self.num_classes is None):
            raise ValueError("a generator needs the keys space and num_classes")
        if self.class_names and self.num_classes is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names has {len(self.class_names)} names, but num_classes is {self.num_classes}")

    @property
    def use(self) -> str:
        """The name of the component in the registry."""
        return str(self.table["use"])

    @property
    def is_post_trained(self) -> bool | None:
        """Whether a tokenizer's decoder is post-trained; None if that is not known, as of a published checkpoint."""
        if self.post_trained is not None:
            return True
        return None if self.imported_from is not None else False

    @property
    def classes(self) -> list[str]:
        """The names of a generator's classes; the numbers as text if the names are not known."""
        return self.class_names or [str(number) for number in range(self.num_classes or 0)]


def save_component(folder: Path, kind: str, table: Mapping[str, Any], module: nn.Module, **about: Any) -> None:
    """Writes a component's recipe table and weights, and `about`, further entries of component.json."""
    if isinstance(module, Generator):
        about |= {"space": attrs.asdict(module.space), "num_classes": module.num_classes}
    write_json(folder / COMPONENT_FILE, {"kind": kind, "table": dict(table), **about})
    write_tensors(folder / WEIGHTS_FILE, module.state_dict())


def read_artifact(folder: Path) -> ArtifactRecord:
    """The record of the artifact in a folder.

    Raises:
        RobustokError: if the folder holds no artifact, or its component.json is damaged.
    """
    return _read(ArtifactRecord, folder)


def read_component(folder: Path) -> ComponentRecord:
    """The record of the component in a folder.

    Raises:
        RobustokError: if the folder holds no component, or its component.json is damaged.
    """
    return _read(ComponentRecord, folder)


def _read(kind: type[Record], folder: Path) -> Record:
    if not (folder / COMPONENT_FILE).is_file():
        raise RobustokError("there is no component here", where=str(folder), hint="name an artifact's folder")
    return read_record(kind, folder / COMPONENT_FILE)


def sketch_component(registry: Builder, folder: Path) -> Any:
    """Builds a component that `save_component` wrote on the meta device: shapes without weights.

    Raises:
        RobustokError: if the folder holds no component, or one that the installed plugins do not know.
    """
    record = read_component(folder)
    arguments = (record.space, record.num_classes) if record.kind == "generator" else ()
    try:
        with as_it_was_made():
            return registry.spec(record.kind, record.table).sketch(*arguments)
    except (RobustokError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        where, hint = str(folder / COMPONENT_FILE), "the file is damaged, or other plugins wrote it"
        raise RunError(f"this component cannot be built: {error}", where=where, hint=hint) from error


def load_component(registry: Builder, folder: Path) -> nn.Module:
    """Builds a component that `save_component` wrote, in eval mode.

    Raises:
        RobustokError: if the folder holds no component, or its weights do not fit or are not finite.
    """
    module: nn.Module = sketch_component(registry, folder)
    weights = read_tensors(folder / WEIGHTS_FILE)
    check_weights(module, weights, str(folder / WEIGHTS_FILE))
    module = module.to_empty(device="cpu")
    module.load_state_dict(weights)
    return module.eval()
