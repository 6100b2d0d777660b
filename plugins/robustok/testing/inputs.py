"""What data sets, importers and stages promise: what a run begins with, and its steps."""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robustok.testing.subject import Subject
from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset, Images
from robustok_core.recipe.recipe import Recipe
from robustok_core.runs.files import write_tensors
from robustok_core.runs.runner import run
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws


def dataset_checks(subject: Subject) -> None:
    """Two splits of images with labels, the same each time they are read."""
    data, again = subject.build(), subject.build()
    named = len(data.class_names) == data.num_classes
    subject.require(named, f"it has {data.num_classes} classes and {len(data.class_names)} names of them")
    for name in ("train", "validation"):
        _split_checks(subject, data, getattr(data, name), name)
        same = getattr(again, name).fingerprint == getattr(data, name).fingerprint
        subject.require(same, f"two builds give the split {name} two fingerprints")
    counts = data.train.labels.bincount(minlength=data.num_classes)
    subject.require(bool((counts >= 2).all()), "a class has fewer than 2 training images")


def _split_checks(subject: Subject, data: Dataset, split: Images, name: str) -> None:
    subject.require(isinstance(split, Images), f"{name} must be Images, found {type(split).__name__}")
    subject.require(len(split) > 0, f"{name} holds no image")
    subject.tensor(split.labels, (len(split),), torch.int64, f"labels of {name}")
    inside = bool(((split.labels >= 0) & (split.labels < data.num_classes)).all())
    subject.require(inside, f"labels of {name} must lie in [0, {data.num_classes})")
    printed = isinstance(split.fingerprint, str) and bool(split.fingerprint)
    subject.require(printed, f"the fingerprint of {name} must be a string")
    rows = [len(split) - 1, 0]
    for draws in (None, Draws(seed=0, indices=torch.tensor(rows), total=len(split))):
        batch = split.load(rows, draws)
        subject.require(isinstance(batch, ImageBatch), f"`load` of {name} must give an ImageBatch")
        size = data.image_size
        subject.tensor(batch.images, (2, 3, size, size), torch.float32, f"images of {name}")
        subject.require(bool((batch.images.abs() <= 1.0).all()), f"images of {name} must lie in [-1, 1]")
        named = batch.indices.tolist() == rows and torch.equal(batch.labels, split.labels[rows])
        subject.require(named, f"`load` of {name} must give the labels and indices that were asked for")
        for other in (split, pickle.loads(pickle.dumps(split))):
            same = torch.equal(other.load(rows, draws).images, batch.images)
            subject.require(same, f"{name} gives another image the second time, or in a loader's process")


def importer_checks(subject: Subject, *, file: str | Path) -> None:
    """A component that its recipe table builds again, and a file of it that can be read back."""
    importer = subject.build()
    kind: str = getattr(importer, "makes", "nothing")
    subject.require(kind in ("tokenizer", "generator"), '`makes` must be "tokenizer" or "generator"')
    table, module, report = importer.load(Path(file), subject.registry)
    told = all(isinstance(key, str) and isinstance(why, str) for key, why in report.items())
    subject.require(told, "the report must say in words what was dropped and why")
    args = (module.space, module.num_classes) if kind == "generator" else ()
    with torch.device("meta"):
        built = subject.registry.build(kind, table, *args).state_dict()
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    same = {name: value.shape for name, value in built.items()} == shapes
    subject.require(same, "its recipe table builds a component with other weights than it loads")
    try:
        published = importer.export(module)
    except RobustokError:
        return  # a format to read only
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder) / "exported.safetensors", published)
        back = importer.load(Path(folder) / "exported.safetensors", subject.registry)[1].state_dict()
    whole = all(torch.equal(value, back[name]) for name, value in module.state_dict().items())
    subject.require(whole, "what it exports and reads again has other weights")


def stage_checks(subject: Subject, *, recipe: Mapping[str, Any] | None = None) -> None:
    """Names of tables and artifacts; in a recipe, results that are finite and a second run that does nothing."""
    stage = subject.build()
    for name in ("uses", "may_use", "needs", "makes"):
        held = getattr(stage, name)
        names = isinstance(held, tuple) and all(isinstance(one, str) for one in held)
        subject.require(names, f"`{name}` must be a tuple of names, as in ('tokenizer',)")
    if recipe is None:
        return
    used = [one.get("use") for one in recipe.get("stage", ())]
    subject.require(subject.spec.name in used, f"the recipe has no stage that uses it, but {used}")
    with tempfile.TemporaryDirectory() as folder:
        results = run(Recipe.from_table(dict(recipe)), registry=subject.registry, out=Path(folder))
        for name, result in results.items():
            subject.require(math.isfinite(result.value), f"the result {name!r} is not finite")
        again = run(Recipe.from_table(dict(recipe)), registry=subject.registry, out=Path(folder))
        subject.require(dict(again) == dict(results), "a second run, in which all is done, gives other results")
