"""What a run has to show: its tokenizer before and after post-training, its generator and its validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset
from robustok_core.recipe.recipe import Recipe
from robustok_core.recipe.registry import Registry, load_registry
from robustok_core.runs.components import read_component
from robustok_core.runs.folder import find_artifact, finished_artifacts, is_artifact
from robustok_core.runs.history import RECIPE_FILE
from robustok_toolkit.cropped_images import batches_of
from robustok_toolkit.trained_generator import TrainedGenerator, load_generator
from robustok_toolkit.trained_tokenizer import TrainedTokenizer, load_tokenizer


@frozen(kw_only=True, eq=False)
class Chosen:
    """Images to draw.

    Attributes:
        images: (B, 3, H, W) in [-1, 1]. names: what to call each of them.
        rows: their numbers in the validation set; empty for a file. label: their class, if it is known.
    """

    images: Tensor
    names: Sequence[str]
    rows: Sequence[int] = ()
    label: int | None = None


@frozen(kw_only=True, eq=False)
class OpenedRun:
    """A run's trained components.

    Attributes:
        place: the run's folder as the user named it, for snippets.
        tokenizers: by name: "before" (of main training, or else the one that it loaded) and "after"; or "" alone.
        places: what `robustok.load_tokenizer` takes for each of them.
        post_trained: whether the newest one is; None if that is not known, as of a published checkpoint.
        generator, data: None if the run has none.
        recipe: the run's recipe as a table; empty if it cannot be read.
        missing: what the run does not have, and why, as sentences.
    """

    place: str
    registry: Registry
    tokenizers: Mapping[str, TrainedTokenizer]
    places: Mapping[str, str]
    post_trained: bool | None
    generator: TrainedGenerator | None
    data: Dataset | None
    recipe: Mapping[str, Any]
    missing: Sequence[str] = field(default=())

    @property
    def tokenizer(self) -> TrainedTokenizer:
        """The newest one, which encodes; all have the same encoder."""
        return list(self.tokenizers.values())[-1]

    @property
    def class_names(self) -> Sequence[str]:
        """Of the data, or of the generator."""
        if self.data is not None:
            return self.data.class_names
        return [] if self.generator is None else self.generator.class_names

    def chosen(self, image: int, file: str | None, count: int = 1) -> Chosen:
        """A validation image and the next ones of its class, or the image in a file.

        Args:
            image: its number in the validation set. file: replaces it. count: number of images; a file is one.

        Raises:
            RobustokError: if the run has no such image, or the file cannot be read.
        """
        if file is not None:
            (images,) = batches_of([Path(file)], self.tokenizer.tokenizer.image_size, 1)
            return Chosen(images=images, names=[Path(file).name])
        if self.data is None:
            raise RobustokError("this run's data cannot be read", where=self.place, hint="name an image file instead")
        split = self.data.validation
        if image >= len(split):
            what = f"there is no validation image {image}"
            raise RobustokError(what, where="image", hint=f"images are 0 to {len(split) - 1}")
        label = int(split.labels[image])
        rows = next_of_class(split.labels, image, count)
        names = [f"{self.class_names[label]}, image {row}" for row in rows]
        return Chosen(images=split.load(rows).images, names=names, rows=rows, label=label)


def next_of_class(labels: Tensor, image: int, count: int) -> list[int]:
    """The number of an image and of the next images of its class, from its start after its end; at most all of it."""
    same = (labels == labels[image]).nonzero().flatten()
    first = int((same < image).sum())
    return torch.cat([same[first:], same[:first]])[:count].tolist()


def open_run(place: Path, *, device: torch.device) -> OpenedRun:
    """Loads what a run has.

    Raises:
        RobustokError: if it is not a run, or has no finished tokenizer.
    """
    if not place.exists():
        raise RobustokError("there is no such run", where=str(place), hint="a run's folder is runs/NAME")
    if is_artifact(place):
        what, hint = "this is the folder of an artifact, not of a run", "name the run's folder, runs/NAME"
        raise RobustokError(what, where=str(place), hint=hint)
    registry, missing = load_registry(), list[str]()
    places = _tokenizer_places(place, missing)
    tokenizers = {name: load_tokenizer(where, device=device, registry=registry) for name, where in places.items()}
    recipe = _recipe(place, missing)
    return OpenedRun(
        place=str(place),
        registry=registry,
        tokenizers=tokenizers,
        places={name: str(where) for name, where in places.items()},
        post_trained=read_component(list(tokenizers.values())[-1].where).is_post_trained,
        generator=_generator(place, list(tokenizers.values())[-1], registry, missing),
        data=_data(recipe, list(tokenizers.values())[-1].tokenizer.image_size, registry, missing),
        recipe=recipe,
        missing=missing,
    )


def _tokenizer_places(place: Path, missing: list[str]) -> dict[str, Path]:
    """Where the tokenizers lie: the run itself, where it names the newest one; notes a last one that is unfinished."""
    folders = finished_artifacts(place, "tokenizer")
    try:
        newest, named = find_artifact(place, "tokenizer"), place
    except RobustokError as error:
        if not folders:
            raise
        newest = named = find_artifact(folders[-1], "tokenizer")
        missing.append(f"The tokenizer after post-training: {error.what}.")
    before = [folder for folder in folders if folder != newest]
    if read_component(newest).post_trained is None or not before:
        return {"": named}
    of_main_training = [folder for folder in before if read_component(folder).post_trained is None]
    return {"before": (of_main_training or before[:1])[-1], "after": named}


def _recipe(place: Path, missing: list[str]) -> Mapping[str, Any]:
    try:
        return Recipe.load(place / RECIPE_FILE).source.table
    except RobustokError as error:
        missing.append(f"The recipe: {error}.")
        return {}


def _generator(
    place: Path, tokenizer: TrainedTokenizer, registry: Registry, missing: list[str]
) -> TrainedGenerator | None:
    try:
        return load_generator(place, tokenizer=tokenizer, registry=registry)
    except RobustokError as error:
        missing.append(f"A generator, which sampling and keeping a share σ need: {error.what}.")
        return None


def _data(recipe: Mapping[str, Any], size: int, registry: Registry, missing: list[str]) -> Dataset | None:
    try:
        if "data" not in recipe:
            raise RobustokError("the recipe has no [data]")
        data: Dataset = registry.build("dataset", recipe["data"])
        if data.image_size != size:
            raise RobustokError(f"they are of {data.image_size} pixels, and the tokenizer takes {size}")
        return data
    except RobustokError as error:
        missing.append(f"The validation images (an image file works): {error}.")
        return None
