"""The order in which images are read: a function of (seed, epoch), independent of processes and workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.utils.data import DataLoader

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.dataset import Images, Rows
from robustok_core.runs.failures import loader_failure
from robustok_core.runs.interrupt import STOP_SIGNALS
from robustok_core.values.batches import Batch, ImageBatch
from robustok_core.values.draws import Draws, derive_seed

_Key = tuple["int | None", list[int]]  # the epoch (None: no augmentation), the images of a micro-batch


def steps_per_epoch(rows: Sized, global_batch: int) -> int:
    """Optimiser steps per epoch; images that do not fill a last batch are skipped in that epoch.

    Raises:
        RobustokError: if the split holds less than one batch.
    """
    steps = len(rows) // global_batch
    if steps == 0:
        what = f"a batch of {global_batch} images is larger than the training split, which holds {len(rows)}"
        raise RobustokError(what, hint=f"choose a batch of at most {len(rows)}")
    return steps


def measured_steps(every: float, epoch_steps: int) -> int:
    """Optimiser steps between two measurements that are `every` epochs apart, at least 1; 0 for no measurements."""
    return max(1, round(every * epoch_steps)) if every > 0.0 else 0


def check_parts(global_batch: int, world: int, accumulation: int) -> None:
    """Raises RobustokError if a batch does not divide into equal micro-batches on all processes."""
    parts = world * accumulation
    if global_batch % parts:
        raise RobustokError(
            f"a batch of {global_batch} images does not divide into {parts} equal parts "
            f"({world} processes x {accumulation} micro-batches)",
            hint=f"choose a multiple of {parts}",
        )


def epoch_order(count: int, *, seed: int, epoch: int) -> Tensor:
    """(count,) int64, the permutation in which an epoch reads its images."""
    return torch.argsort(Draws.for_rows(derive_seed(seed, "order", epoch), count).bits(), stable=True)


def class_balanced_order(labels: Tensor) -> Tensor:
    """(n,) int64, a permutation for labels (n,): one image of each class, then a second of each, and so on.

    The first m images contain every class equally often, to within one, until the smallest class is exhausted.
    The order of the classes is shuffled once, so that m below the number of classes is not biased either.
    """
    num_classes = len(torch.bincount(labels))
    rank_of_class = torch.argsort(epoch_order(num_classes, seed=0, epoch=0))
    return torch.argsort(number_in_class(labels) * num_classes + rank_of_class[labels])


def number_in_class(labels: Tensor) -> Tensor:
    """(n,) int64: how many earlier images have the class of each; labels are (n,) int64."""
    counts = torch.bincount(labels)
    by_class = torch.argsort(labels, stable=True)
    number = torch.empty_like(by_class)
    number[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return number


def balanced_halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Splits the indices of labels (n,) into two halves (m,) int64 that hold each class equally often, to within 1."""
    by_class = labels.argsort(stable=True)
    return by_class[0::2].sort().values, by_class[1::2].sort().values


def training_batches(
    rows: Rows,
    *,
    seed: int,
    global_batch: int,
    accumulation: int,
    rank: int,
    world: int,
    start_step: int,
    total_steps: int,
    workers: int,
) -> Iterator[list[Batch]]:
    """Yields this process's `accumulation` micro-batches of each step in [start_step, total_steps).

    Micro-batch m of process p holds the b rows of the step's global batch from (m * world + p) * b on, where
    b = global_batch / (world * accumulation). Augmentation depends only on (seed, epoch, image).

    Args:
        rows: the training split.
        workers: loader processes; 0 reads in this process.

    Raises:
        RobustokError: if the batch does not divide or exceeds the split; while iterating, the error of a worker.
    """
    check_parts(global_batch, world, accumulation)
    plan = _TrainingPlan(
        count=len(rows),
        steps_per_epoch=steps_per_epoch(rows, global_batch),
        seed=seed,
        global_batch=global_batch,
        accumulation=accumulation,
        rank=rank,
        world=world,
        steps=range(start_step, total_steps),
    )
    return _steps(_read(rows, derive_seed(seed, "augmentation"), plan, workers), len(plan.steps), accumulation)


def rows_of_step(
    count: int, *, seed: int, global_batch: int, accumulation: int, world: int, step: int
) -> list[list[list[int]]]:
    """The indices of the rows that a step reads, by process and micro-batch; for arguments see `training_batches`."""
    return [
        [
            rows
            for _, rows in _TrainingPlan(
                count=count,
                steps_per_epoch=count // global_batch,
                seed=seed,
                global_batch=global_batch,
                accumulation=accumulation,
                rank=process,
                world=world,
                steps=range(step, step + 1),
            )
        ]
        for process in range(world)
    ]


def evaluation_batches(
    images: Images, *, batch_size: int, rank: int, world: int, limit: int | None = None, workers: int = 0
) -> Iterator[ImageBatch]:
    """Yields this process's batches, without augmentation; all processes together read each image exactly once.

    Args:
        limit: read only the first `limit` images of `class_balanced_order`.
    """
    chosen = torch.arange(len(images))
    if limit is not None and limit < len(images):
        chosen = class_balanced_order(images.labels)[:limit].sort().values
    share = chosen[len(chosen) * rank // world : len(chosen) * (rank + 1) // world]
    return batches_of(images, share, batch_size=batch_size, workers=workers)


def batches_of(images: Images, chosen: Tensor, *, batch_size: int, workers: int = 0) -> Iterator[ImageBatch]:
    """Yields the images at indices `chosen` (m,) int64, in this order, without augmentation."""
    plan: list[_Key] = [(None, rows.tolist()) for rows in chosen.split(batch_size) if len(rows)]
    return _read(images, 0, plan, workers)


@frozen(kw_only=True)
class _TrainingPlan:
    """Iterates over the keys of one process's micro-batches, computed epoch by epoch."""

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
    """Reads one micro-batch. Returns a RobustokError as a value: raised in a worker, torch would wrap it."""

    rows: Rows
    seed: int

    def __getitem__(self, key: _Key) -> Batch | RobustokError:
        epoch, indices = key
        draws = None
        if epoch is not None:
            rows = torch.tensor(indices, dtype=torch.int64)
            draws = Draws(seed=derive_seed(self.seed, epoch), indices=rows, total=len(self.rows))
        try:
            return self.rows.load(indices, draws)
        except RobustokError as error:
            return error


def _read(rows: Rows, seed: int, plan: Iterable[_Key], workers: int) -> Iterator[Any]:
    reader: Any = _Reader(rows, seed)
    loader: DataLoader[Any] = DataLoader(
        reader,
        sampler=plan,
        batch_size=None,  # a key is already a whole micro-batch
        collate_fn=_unchanged,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_main_process,
        generator=torch.Generator(),  # the default would draw from the global random state
    )
    processes, batches = _started(loader)
    try:
        for batch in batches:
            if isinstance(batch, RobustokError):
                raise batch
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        if "DataLoader worker (pid" in str(error) or _has_died(processes, error):
            raise _death_of(processes) from error
        raise


def _started(loader: DataLoader[Any]) -> tuple[list[BaseProcess], Iterator[Any]]:
    """Starts the loader's processes, with signals held back until they have chosen not to answer them."""
    if loader.num_workers == 0:
        return [], iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        batches: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # torch would raise the death of a worker wherever the main process is, even while it writes a checkpoint;
        # without its handler, it notices when it waits for a batch.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return list(batches._workers), batches  # not those of active_children(), which lacks one that has died already


def _has_died(processes: Sequence[BaseProcess], error: BaseException) -> bool:
    """Whether an error in reading what a process has sent is due to its death."""
    if "in DataLoader worker process" in str(error):  # its own error, which torch passes on
        return False
    until = time.monotonic() + 1.0
    while not any(process.exitcode for process in processes) and time.monotonic() < until:
        time.sleep(0.01)
    return any(process.exitcode for process in processes)


def _death_of(processes: Sequence[BaseProcess]) -> RunError:
    codes = [process.exitcode for process in processes if process.exitcode]
    how = f"exit code {codes[0]}" if codes and codes[0] > 0 else signal.Signals(-codes[0]).name if codes else "unknown"
    what = f"a process that loads images was killed or has failed ({how})"
    return loader_failure(what, killed=codes[:1] == [-signal.SIGKILL])


def _unchanged(loaded: Any) -> Any:
    return loaded


def _leave_signals_to_the_main_process(_: int) -> None:
    # Ctrl-C and schedulers signal all processes; the main process decides when the loaders stop, and tells them so
    # with a SIGTERM of its own.
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(main.pid,), daemon=True).start()


def _end_when_told(main: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main:
        pass
    os._exit(0)


def _steps(batches: Iterator[Batch], steps: int, accumulation: int) -> Iterator[list[Batch]]:
    for _ in range(steps):
        yield [next(batches) for _ in range(accumulation)]
