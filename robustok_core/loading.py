"""The order in which images are read: a function of (seed, epoch), whatever the processes and workers do."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.utils.data import DataLoader

from robustok_core.draws import Draws, derive_seed
from robustok_core.errors import RobustokError, RunError
from robustok_core.interfaces import ImageBatch, Images

_Key = tuple["int | None", list[int]]  # the epoch (None: no augmentation), the images of a micro-batch


def steps_per_epoch(images: Images, global_batch: int) -> int:
    """Optimiser steps of one epoch; the images that do not fill a last batch wait for the next epoch's order.

    Raises:
        RobustokError: the split holds less than one batch.
    """
    steps = len(images) // global_batch
    if steps == 0:
        raise RobustokError(
            f"a batch of {global_batch} images is larger than the training split, which holds {len(images)}",
            hint=f"choose a batch of at most {len(images)}",
        )
    return steps


def epoch_order(count: int, *, seed: int, epoch: int) -> Tensor:
    """(count,) int64, the permutation in which an epoch reads its images."""
    return torch.argsort(Draws.for_rows(derive_seed(seed, "order", epoch), count).bits(), stable=True)


def class_balanced_order(labels: Tensor) -> Tensor:
    """(n,) int64, a permutation for labels (n,): one image of each class, then a second of each, and so on.

    The first m rows hold every class equally often (to within one, while the smallest class lasts).
    Classes take turns in one fixed shuffled order, so that m below the number of classes is fair too.
    """
    counts = torch.bincount(labels)
    by_class = torch.argsort(labels, stable=True)
    turn = torch.empty_like(by_class)
    turn[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = torch.argsort(epoch_order(len(counts), seed=0, epoch=0))
    return torch.argsort(turn * len(counts) + place[labels])


def training_batches(
    images: Images,
    *,
    seed: int,
    global_batch: int,
    accumulation: int,
    rank: int,
    world: int,
    start_step: int,
    total_steps: int,
    workers: int,
) -> Iterator[list[ImageBatch]]:
    """For each step in [start_step, total_steps) the `accumulation` micro-batches of this process.

    Micro-batch m of process p takes rows [(m * world + p) * b, + b) of the step's global batch, b =
    global_batch / (world * accumulation). Augmentation depends on (seed, epoch, image) only.

    Args:
        images: the training split.
        workers: loader processes; 0 reads in this process.

    Raises:
        RobustokError: the batch does not divide, or exceeds the split; later, whatever a worker met.
    """
    if global_batch % (world * accumulation):
        raise RobustokError(
            f"a batch of {global_batch} images cannot be cut into {world} processes x {accumulation} micro-batches",
            hint=f"choose a multiple of {world * accumulation}",
        )
    plan = _TrainingPlan(
        count=len(images),
        steps_per_epoch=steps_per_epoch(images, global_batch),
        seed=seed,
        global_batch=global_batch,
        accumulation=accumulation,
        rank=rank,
        world=world,
        steps=range(start_step, total_steps),
    )
    return _steps(_read(images, derive_seed(seed, "augmentation"), plan, workers), len(plan.steps), accumulation)


def evaluation_batches(
    images: Images, *, batch_size: int, rank: int, world: int, limit: int | None = None, workers: int = 0
) -> Iterator[ImageBatch]:
    """This process's batches, without augmentation; all processes together see each image exactly once.

    Args:
        limit: take only this many images, the first of `class_balanced_order`.
    """
    chosen = torch.arange(len(images))
    if limit is not None and limit < len(images):
        chosen = class_balanced_order(images.labels)[:limit].sort().values
    share = chosen[len(chosen) * rank // world : len(chosen) * (rank + 1) // world]
    plan: list[_Key] = [(None, rows.tolist()) for rows in share.split(batch_size) if len(rows)]
    return _read(images, 0, plan, workers)


@frozen(kw_only=True)
class _TrainingPlan:
    """The keys of all micro-batches of one process, worked out epoch by epoch."""

    count: int
    steps_per_epoch: int
    seed: int
    global_batch: int
    accumulation: int
    rank: int
    world: int
    steps: range

    def __iter__(self) -> Iterator[_Key]:
        local = self.global_batch // (self.world * self.accumulation)
        epoch, order = -1, torch.empty(0, dtype=torch.int64)
        for step in self.steps:
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = epoch_order(self.count, seed=self.seed, epoch=epoch)
            first = (step % self.steps_per_epoch) * self.global_batch
            for micro in range(self.accumulation):
                begin = first + (micro * self.world + self.rank) * local
                yield epoch, order[begin : begin + local].tolist()


@frozen
class _Reader:
    """Reads one micro-batch; hands a user's error on as a value, which torch would turn into a traceback."""

    images: Images
    seed: int

    def __getitem__(self, key: _Key) -> tuple[Tensor, Tensor, Tensor] | RobustokError:
        epoch, indices = key
        draws = None
        if epoch is not None:
            rows = torch.tensor(indices, dtype=torch.int64)
            draws = Draws(seed=derive_seed(self.seed, epoch), indices=rows, total=len(self.images))
        try:
            batch = self.images.load(indices, draws)
        except RobustokError as error:
            return error
        return batch.images, batch.labels, batch.indices


def _read(images: Images, seed: int, plan: Iterable[_Key], workers: int) -> Iterator[ImageBatch]:
    reader: Any = _Reader(images, seed)
    loader: DataLoader[Any] = DataLoader(
        reader,
        sampler=plan,
        batch_size=None,  # a key is a whole micro-batch already
        collate_fn=_unchanged,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # the default would draw from the global random state
    )
    try:
        for found in loader:
            if isinstance(found, RobustokError):
                raise found
            yield ImageBatch(images=found[0], labels=found[1], indices=found[2])
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        what = str(error).splitlines()[0].rstrip(". ")
        hint = "the system may have run out of memory or of shared memory (/dev/shm); use fewer workers"
        raise RunError(what, where="data loader", hint=hint) from error


def _unchanged(loaded: Any) -> Any:
    return loaded


def _ignore_interrupts(_: int) -> None:
    # Ctrl-C reaches all processes of the terminal; the main one decides when the loaders stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _steps(batches: Iterator[ImageBatch], steps: int, accumulation: int) -> Iterator[list[ImageBatch]]:
    for _ in range(steps):
        yield [next(batches) for _ in range(accumulation)]
