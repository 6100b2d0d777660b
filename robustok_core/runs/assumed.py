"""What a recipe says of files that are not on this machine, so that it can be checked and planned without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset, Expected, Images
from robustok_core.kinds.promise import Promise, PromiseT
from robustok_core.recipe.recipe import LoadConfig, Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import LatentSpace
from robustok_core.values.spec import Spec


@frozen(kw_only=True)
class Launch:
    """How a recipe that is only checked or planned will be launched.

    Attributes:
        processes: one for each GPU. divides_weights: whether weights are divided among them (FSDP).
    """

    processes: int
    divides_weights: bool = False


@define(kw_only=True, eq=False)
class Assumed:
    """What is taken as the recipe says, because it is not here.

    Attributes:
        registry: the components.
        opens_data: whether a data set that is here is opened although its options say what it holds.
        not_checked: sentences about what was not looked at, in order, each once.
    """

    registry: Registry
    opens_data: bool = False
    not_checked: dict[str, None] = field(factory=dict, init=False)

    def say(self, what: str) -> None:
        """Notes what was not checked."""
        self.not_checked.setdefault(what)

    def dataset(self, spec: Spec) -> Dataset:
        """The data set, or what stands in for it.

        Raises:
            RobustokError: it is not here, and its options do not say what it holds.
        """
        expected: Expected | None = getattr(spec.config, "expect", None)
        if expected is None or self.opens_data:
            try:
                dataset: Dataset = spec.build()
                return dataset
            except RobustokError as error:
                if expected is None:
                    hint = 'say what it will hold: --set "data.expect={train=1281167, validation=50000, classes=1000}"'
                    known = any(name == "expect" for name in dir(spec.config))
                    raise RobustokError(error.what, where=error.where, hint=hint if known else error.hint) from error
        numbers = f"{expected.train:,} training and {expected.validation:,} validation images of {expected.classes:,}"
        self.say(f"data: taken as its option `expect` says: {numbers} classes")
        return ExpectedDataset(spec.config, expected)

    def component(
        self,
        name: str,
        load: LoadConfig,
        recipe: ResolvedRecipe,
        promises: Mapping[str, Promise],
        dataset: Callable[[], Dataset],
    ) -> Promise:
        """The promise of an entry of [load] that is not here, as its option `expect` says.

        Args:
            promises: of the entries, to which the tokenizer of a generator belongs. dataset: opens the data set.

        Raises:
            RobustokError: the option is not given, or describes no component.
        """
        where = recipe.source.location(("load", name))
        if load.expect is None or name not in ("tokenizer", "generator"):
            what = f"[load] {name}: {load.path} is not here, and nothing says what it will hold"
            hint = f'--set "load.{name}.expect=RECIPE" names a recipe whose table [{name}] describes it'
            raise RobustokError(what, where=where, hint=hint)
        self.say(f"[load] {name}: {load.path} is not here; taken as the entry's option `expect` says")
        return ExpectedComponent(
            self._spec(name, load.expect, where),
            space=lambda: promises["tokenizer"].read(TokenizerPromise).space,
            num_classes=lambda: dataset().num_classes,
        )

    def _spec(self, name: str, expect: str | Mapping[str, Any], where: str) -> Spec:
        if not isinstance(expect, str):
            return self.registry.spec(name, expect)
        recipe = Recipe.load(expect).resolve(self.registry)
        if name in recipe.tables:
            return recipe.tables[name]
        further = recipe.load[name].expect if name in recipe.load else None
        if not isinstance(further, Mapping):
            raise RobustokError(f"load.{name}.expect: the recipe {expect!r} has no table [{name}]", where=where)
        return self.registry.spec(name, further)


class ExpectedDataset(Dataset):
    """As many images and classes as a data set will have; none can be loaded."""

    def __init__(self, config: Any, expected: Expected) -> None:
        self.image_size = config.image_size
        self.num_classes = expected.classes
        self.class_names: Sequence[str] = [str(number) for number in range(expected.classes)]
        self.train, self.validation = (
            _ExpectedImages(min(count, limit or count), expected.classes)
            for count, limit in (
                (expected.train, getattr(config, "train_limit", None)),
                (expected.validation, getattr(config, "validation_limit", None)),
            )
        )


class _ExpectedImages(Images):
    """Classes take turns."""

    def __init__(self, count: int, classes: int) -> None:
        self._count, self._classes = count, classes

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _labels(self) -> Tensor:
        return torch.arange(self._count) % self._classes

    @property
    def labels(self) -> Tensor:
        return self._labels

    @property
    def fingerprint(self) -> str:
        return "expected"

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        raise RobustokError("these images are not here", where="data")


@frozen(eq=False)
class ExpectedComponent(Promise):
    """A tokenizer or generator of [load] that is not here, as its entry's option `expect` says.

    Attributes:
        spec: of the component. space, num_classes: of a generator.
    """

    spec: Spec = field(kw_only=False)
    space: Callable[[], LatentSpace] = field(kw_only=True)
    num_classes: Callable[[], int] = field(kw_only=True)

    def read(self, kind: type[PromiseT]) -> PromiseT:
        """As a promise of its kind."""
        if kind is TokenizerPromise and self.spec.kind == "tokenizer":
            sketch = self.spec.sketch()
            promise: Any = TokenizerPromise.of_component(sketch, {})
            return evolve(promise, fingerprint=None, opponents=None, expected=True)
        if kind is GeneratorPromise and self.spec.kind == "generator":
            sketch = self.spec.sketch(self.space(), self.num_classes())
            return GeneratorPromise.of_component(sketch, {"use": self.spec.name})  # type: ignore[return-value]
        raise RobustokError(f"what is expected here is a {self.spec.kind}, not a {kind.__name__}")
