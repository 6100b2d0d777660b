"""Checks of data sets, importers and stages."""

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
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.recipe import Recipe
from robustok_core.runs.files import write_tensors
from robustok_core.runs.runner import run
from robustok_core.values.draws import Draws


def dataset_checks(subject: Subject) -> None:
    """Checks two splits of labelled images, which must be the same each time they are read."""
    data, again = subject.build(), subject.build()
    for name in ("train", "validation"):
        _split_checks(subject, getattr(data, name), name)
        same = getattr(again, name).fingerprint == getattr(data, name).fingerprint
        subject.require(same, f"two builds give the split {name} different fingerprints")
    counts = data.train.labels.bincount(minlength=data.num_classes)
    subject.require(bool((counts >= 2).all()), "a class has fewer than 2 training images")


def _split_checks(subject: Subject, split: Images, name: str) -> None:
    printed = isinstance(split.fingerprint, str) and bool(split.fingerprint)
    subject.require(printed, f"the fingerprint of {name} must be a string")
    rows = [len(split) - 1, 0]
    for draws in (None, Draws(seed=0, indices=torch.tensor(rows), total=len(split))):
        batch = split.load(rows, draws)
        named = batch.indices.tolist() == rows and torch.equal(batch.labels, split.labels[rows])
        subject.require(named, f"`load` of {name} must return the requested labels and indices")
        for other in (split, pickle.loads(pickle.dumps(split))):
            same = torch.equal(other.load(rows, draws).images, batch.images)
            subject.require(same, f"{name} gives different images the second time, or in a loader process")


def importer_checks(subject: Subject, *, file: str | Path) -> None:
    """Checks that the recipe table rebuilds the component, and that an exported file can be read back."""
    importer = subject.build()
    makes = getattr(importer, "makes", "nothing")
    subject.require(makes in ("tokenizer", "generator", None), '`makes` must be "tokenizer", "generator" or None')
    table, module, _ = importer.load(Path(file), subject.registry)
    kind = makes or ("generator" if isinstance(module, Generator) else "tokenizer")
    importer.opponents(Path(file))
    args = (module.space, module.num_classes) if kind == "generator" else ()
    with torch.device("meta"):
        built = subject.registry.build(kind, table, *args).state_dict()
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    same = {name: value.shape for name, value in built.items()} == shapes
    subject.require(
        same, "its recipe table builds a component whose weights have different names or shapes from those it loads"
    )
    try:
        published = importer.export(module)
    except RobustokError:
        return  # the format can only be read
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder) / "exported.safetensors", published)
        back = importer.load(Path(folder) / "exported.safetensors", subject.registry)[1].state_dict()
    whole = all(torch.equal(value, back[name]) for name, value in module.state_dict().items())
    subject.require(whole, "the exported file gives different weights when it is read back")


def stage_checks(subject: Subject, *, recipe: Mapping[str, Any] | None = None) -> None:
    """Checks names of tables and artifacts; in a recipe, finite results and a second run that changes nothing."""
    stage = subject.build()
    for name in ("uses", "may_use", "needs", "makes"):
        value = getattr(stage, name)
        names = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        subject.require(names, f"`{name}` must be a tuple of names, for example ('tokenizer',)")
    if recipe is None:
        return
    used = [table.get("use") for table in recipe.get("stage", ())]
    subject.require(subject.spec.name in used, f"the recipe does not have a stage that uses it, only {used}")
    with tempfile.TemporaryDirectory() as folder:
        results = run(Recipe.from_table(dict(recipe)), registry=subject.registry, out=Path(folder))
        for name, result in results.items():
            subject.require(math.isfinite(result.value), f"the result {name!r} is not finite")
        again = run(Recipe.from_table(dict(recipe)), registry=subject.registry, out=Path(folder))
        subject.require(
            dict(again) == dict(results), "a second run, with every stage finished, gives different results"
        )
