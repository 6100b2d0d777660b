"""Whether an importer makes of an exported file what was exported, and with which options.

Published formats hold weights, and at most some options: what they leave out comes back with the importer's default.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.options import as_toml
from robustok_core.recipe.registry import Registry
from robustok_core.runs.components import WEIGHTS_FILE, load_component, read_component
from robustok_core.runs.files import read_tensors
from robustok_core.runs.history import values_by_path
from robustok_core.runs.left_out import values_of_options
from robustok_core.runs.loading import read_published
from robustok_core.values.ignored import as_it_was_made
from robustok_core.values.spec import Spec
from robustok_toolkit.behaviour import outputs_of, same_outputs

#: Options of a component by dotted path with its value and that of the one that was read back.
Differences = dict[str, tuple[Any, Any]]


@frozen(kw_only=True, eq=False)
class About:
    """What is compared of a component before its weights are.

    Attributes:
        options: of its recipe table by dotted path, with every default written out; of a generator, its space, too.
        said: its values for options of the importer.
        guided: whether it is a generator that can be guided.
    """

    options: Mapping[str, Any]
    said: Mapping[str, Any]
    guided: bool

    @classmethod
    def of(cls, component: nn.Module, table: Mapping[str, Any], importer: Spec, registry: Registry) -> About:
        """Describes a component with the importer that has read it, or will."""
        kind = "generator" if isinstance(component, Generator) else "tokenizer"
        with as_it_was_made():
            options = values_by_path(registry.spec(kind, table).table())
        said = dict(_attributes(component, importer.config)) | values_of_options(type(importer.config), table)
        for option in attrs.fields(type(importer.config)):
            if "says" in option.metadata:
                name, value = option.metadata["says"]
                said[option.name] = table.get(name) == value
        if not isinstance(component, Generator):
            return cls(options=options, said=said, guided=False)
        space = component.space
        sizes = {"num_tokens": space.num_tokens, "width": space.width, "codebook_size": space.codebook_size}
        options |= {f"space.{name}": size for name, size in sizes.items()} | {"num_classes": component.num_classes}
        said |= {"num_tokens": space.num_tokens, "code_width": space.width}
        return cls(options=options, said=said, guided=component.knows_null_class)

    def differences(self, other: About) -> Differences:
        """The options that are not the same."""
        names = dict.fromkeys([*self.options, *other.options])
        pairs = {name: (self.options.get(name), other.options.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _attributes(component: nn.Module, config: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of a component that are called like options of an importer: what it chose where its own is None."""
    for option in attrs.fields(type(config)):
        value = getattr(component, option.name, None)
        if isinstance(value, (bool, int, float, str)):
            yield option.name, value


@frozen(kw_only=True, eq=False)
class Found:
    """What came back with some options of the importer.

    Attributes:
        added: options besides those that were given.
        differences: why another model came back; empty if the same did.
        unreadable: why the file cannot be read with these options, or None.
        more: options of the importer that may say the difference.
    """

    added: Mapping[str, Any]
    differences: Differences = field(factory=dict)
    unreadable: str | None = None
    more: Mapping[str, Any] = field(factory=dict)

    @property
    def same(self) -> bool:
        return self.unreadable is None and not self.differences


class ReadBack:
    """Reads an exported file, and compares what comes back with the component that was exported.

    At most two components are in memory at a time, so the exported one must be released before `find`.

    Args:
        registry: has the importer.
        importer: with the options that were given.
        given: these options.
        folder: the artifact that was exported.
        component: the component in it.
    """

    def __init__(
        self, registry: Registry, importer: Spec, given: Mapping[str, Any], folder: Path, component: nn.Module
    ) -> None:
        self._registry, self._importer, self._folder = registry, importer, folder
        self._given = dict(given)
        self._ours = About.of(component, read_component(folder).table, importer, registry)
        self._outputs: dict[bool, list[Tensor]] = {}

    def find(self, file: Path, noted: Mapping[str, Any]) -> Found:
        """What comes back, with as many options of the importer as it needs to be the same model, if they suffice.

        Args:
            file: the exported file. noted: options that the export itself has said to be needed.
        """
        self._given |= {name: value for name, value in noted.items() if name not in self._given}
        found = self._first(file)
        while not found.same and found.more:
            better = self._with_more(file, found)
            if better is None:
                break
            found = better
        return found

    def _first(self, file: Path) -> Found:
        """What comes back with the options that were given; what needs a download, with the component's own options."""
        if any(True for _ in self._importer.factory.downloads(self._importer.config)):
            own = self._untried({}, self._defaults())
            if (found := self._with_more(file, Found(added={}, more=own))) is not None:
                return found
        return self._read(file, {})

    def words(self, out: Path, added: Mapping[str, Any]) -> str:
        """The command that imports the file as it was exported."""
        options = {**self._given, **added}
        sets = [word for name, value in options.items() for word in ("--set", f"{name}={as_toml(value)}")]
        return shlex.join(["robustok", "import", self._importer.name, str(out), "FOLDER", *sets])

    def _with_more(self, file: Path, found: Found) -> Found | None:
        """The result with more options: as many of those that may help as the file can be read with."""
        names, singles = list(found.more), [{name: value} for name, value in found.more.items()]
        others = [{name: found.more[name] for name in names if name != one} for one in names if len(names) > 2]
        # One may be enough to read the file, which then shows what else it needs.
        trials = [*singles, found.more, *others] if found.unreadable is not None else [found.more, *others, *singles]
        for more in trials:
            result = self._read(file, {**found.added, **more})
            if result.unreadable is None:
                return result
        return None

    def _read(self, file: Path, added: Mapping[str, Any]) -> Found:
        spec_table = {"use": self._importer.name, **self._given, **added}
        try:
            importer = self._registry.spec("importer", spec_table, where=self._importer.name)
            imported = read_published(importer, file, self._registry)
        except RobustokError as error:
            return Found(added=added, unreadable=error.what, more=self._untried(added, self._defaults()))
        theirs = About.of(imported.component, imported.table, importer, self._registry)
        differences = self._ours.differences(theirs)
        component = imported.component
        del imported
        if self._is_same(component, differences, guided=self._ours.guided and theirs.guided):
            return Found(added=added)
        more = self._untried(added, theirs.said)
        return Found(added=added, differences=differences or {"its weights": ("as they were", "others")}, more=more)

    def _defaults(self) -> dict[str, Any]:
        return {option.name: option.default for option in attrs.fields(type(self._importer.config))}

    def _untried(self, added: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the importer that were not given, for which the exported component has another value."""
        names = [option.name for option in attrs.fields(type(self._importer.config))]
        untried = [name for name in names if name in self._ours.said and name not in {**self._given, **added}]
        return {name: self._ours.said[name] for name in untried if self._ours.said[name] != others.get(name)}

    def _is_same(self, component: nn.Module, differences: Differences, *, guided: bool) -> bool:
        """Whether what was read back, which is used up, is the model that was exported."""
        if any(name.startswith("space.") or name in ("use", "num_classes") for name in differences):
            return False
        if not differences and _equal(component.state_dict(), read_tensors(self._folder / WEIGHTS_FILE)):
            return True
        theirs = outputs_of(component, guided=guided)
        component.to("meta")
        if guided not in self._outputs:
            self._outputs[guided] = outputs_of(load_component(self._registry, self._folder), guided=guided)
        return same_outputs(self._outputs[guided], theirs)


def _equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def described(differences: Differences) -> str:
    """The options that differ, for a message: "class_rope: identity -> zero"."""
    return ", ".join(f"{name}: {as_toml(ours)} → {as_toml(theirs)}" for name, (ours, theirs) in differences.items())
