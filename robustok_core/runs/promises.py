"""Promises of tokenizers and generators, whether the recipe makes them or [load] names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen
from torch import Tensor, nn
from typing_extensions import Self

from robustok_core.kinds.component import Builder
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.promise import Promise, PromiseT, known_elsewhere, origin_of
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.components import load_component, read_component, sketch_component
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.values.latents import LatentSpace


@frozen(kw_only=True)
class TokenizerPromise(Promise):
    """A tokenizer.

    Attributes:
        space: its latent space. image_size: H = W of its images.
        opponents: losses of its last training whose discriminators are stored with it; None if that is not known yet.
        opponent_weights: those of a published tokenizer that is not written yet, as `Importer.opponents` returns them.
        post_trained: whether its decoder is already post-trained; None if that is not known, as of a published one.
        fingerprint: computes its `latent_fingerprint`; None if its weights do not exist yet.
        folder: its folder; None if it does not exist yet.
        stage: the stage of this recipe that trains it; post-training leaves this as it is. None if none does, or if
            its stage does not say so: it is loaded only where `is_loaded` says that.
        decoder_stage: the stage of this recipe that post-trains its decoder; None if none does.
        sketch: builds it on the meta device; None if its stage does not say how.
        expected: whether it is only taken as the recipe says, because its file is not here.
    """

    space: LatentSpace
    image_size: int
    opponents: Sequence[str] | None = None
    opponent_weights: Mapping[str, Tensor] = field(factory=dict, eq=False)
    post_trained: bool | None = None
    fingerprint: Callable[[], str] | None = None
    folder: Path | None = None
    stage: str | None = None
    decoder_stage: str | None = None
    sketch: Callable[[], Tokenizer] | None = field(default=None, eq=False)
    expected: bool = False

    @property
    def origin(self) -> str | None:
        """Which tokenizer it is, as long as no fingerprint can tell, see `origin_of`; None if no stage says."""
        return origin_of(self.stage)

    @property
    def is_loaded(self) -> bool:
        """Whether it is known that it is loaded, and no stage of this recipe makes it."""
        return self.folder is not None or self.fingerprint is not None or self.expected

    def once_loaded(self) -> Self:
        return attrs.evolve(self, stage=None, decoder_stage=None)

    def describe(self) -> str:
        images = f"images of {self.image_size} x {self.image_size}"
        return f"{self.space.describe()}; {images}{'; post-trained' if self.post_trained else ''}"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        record, tokenizer = read_component(folder), sketch_component(registry, folder)
        return cls(
            space=tokenizer.space,
            image_size=tokenizer.image_size,
            opponents=record.opponents,
            post_trained=record.is_post_trained,
            fingerprint=_once(lambda: latent_fingerprint(_tokenizer(registry, folder))),
            folder=folder,
            sketch=lambda: tokenizer,
        )

    @classmethod
    def of_component(cls, component: Any, table: Mapping[str, Any]) -> Self:
        """The promise of a tokenizer in memory, imported from a published checkpoint."""
        return cls(
            space=component.space,
            image_size=component.image_size,
            sketch=lambda: component,
            fingerprint=_once(lambda: latent_fingerprint(component)),
        )


@frozen(kw_only=True)
class GeneratorPromise(Promise):
    """A generator.

    Attributes:
        name: its name in the registry. factory: its class. sketch: builds it on the meta device.
        space: the latent space that it samples. class_names: the names of its classes.
        tokenizer: the latent fingerprint, or the `origin`, of the tokenizer on whose latents it was trained; None if
            that is not known.
        folder: its folder; None if it does not exist yet.
        stage: the stage of this recipe that trains it; None if none does, or if its stage does not say so.
    """

    name: str
    factory: type[Generator]
    sketch: Callable[[], Generator] = field(eq=False)
    space: LatentSpace
    class_names: Sequence[str]
    tokenizer: str | None = None
    folder: Path | None = None
    stage: str | None = None

    @property
    def origin(self) -> str | None:
        """As `TokenizerPromise.origin`."""
        return origin_of(self.stage)

    def once_loaded(self) -> Self:
        return attrs.evolve(self, stage=None, tokenizer=known_elsewhere(self.tokenizer))

    def describe(self) -> str:
        return f"{self.space.describe()}; {len(self.class_names)} classes"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        record = read_component(folder)
        assert record.space is not None  # a generator's record has one
        return cls(
            name=record.use,
            factory=registry.spec("generator", record.table).factory,
            sketch=_once(lambda: sketch_component(registry, folder)),
            space=record.space,
            class_names=record.classes,
            tokenizer=record.tokenizer,
            folder=folder,
        )

    @classmethod
    def of_component(cls, component: Any, table: Mapping[str, Any]) -> Self:
        """The promise of a generator in memory, imported from a published checkpoint."""
        return cls(
            name=table["use"],
            factory=type(component),
            sketch=lambda: component,
            space=component.space,
            class_names=list(map(str, range(component.num_classes))),
        )


@frozen(eq=False)
class Imported:
    """The result of an importer.

    Attributes:
        file: the checkpoint. table: the component's recipe table. component: with its weights.
        report: the keys that were dropped, and why.
        opponents: discriminators, as `Importer.opponents` returns them.
    """

    file: Path
    table: Mapping[str, Any]
    component: nn.Module
    report: Mapping[str, str]
    opponents: Mapping[str, Tensor] = field(factory=dict)

    @property
    def kind(self) -> str:
        """ "tokenizer" or "generator"."""
        return "generator" if isinstance(self.component, Generator) else "tokenizer"

    @property
    def losses_with_opponent(self) -> list[str]:
        """The names of the losses that it has discriminators of."""
        return sorted({name.split("/")[1] for name in self.opponents})


@frozen(eq=False)
class Loaded(Promise):
    """An artifact from [load]; `read` gets any class of promise from its files or its published checkpoint.

    Attributes:
        registry: builds components. folder: of the artifact. fingerprint: of its content.
        imported: the content of a published checkpoint that is not yet written to `folder`.
    """

    registry: Builder = field(kw_only=False)
    folder: Path = field(kw_only=False)
    fingerprint: str = field(kw_only=False)
    imported: Imported | None = field(default=None, kw_only=False)
    _read: dict[type, Promise] = field(factory=dict, init=False)

    def read(self, kind: type[PromiseT]) -> PromiseT:
        if kind not in self._read:
            if self.imported is None:
                self._read[kind] = kind.of_artifact(self.folder, self.registry)
            else:
                promise = kind.of_component(self.imported.component, self.imported.table)
                if isinstance(promise, TokenizerPromise):
                    names, weights = self.imported.losses_with_opponent, self.imported.opponents
                    promise = attrs.evolve(promise, opponents=names, opponent_weights=weights)
                self._read[kind] = promise
        return self._read[kind]  # type: ignore[return-value]


def _tokenizer(registry: Builder, folder: Path) -> Tokenizer:
    return load_component(registry, folder)  # type: ignore[return-value]


def _once(compute: Callable[[], Any]) -> Callable[[], Any]:
    """A function that computes its value on the first call and caches it."""
    cached: list[Any] = []

    def get() -> Any:
        if not cached:
            cached.append(compute())
        return cached[0]

    return get
