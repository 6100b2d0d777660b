from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from robustok_core.errors import Interrupted, ProblemsError, RobustokError, RunError
from robustok_core.kinds.dataset import Images
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_training.batches import (
    balanced_halves,
    class_balanced_order,
    epoch_order,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)

#: A power of two, so that numbers become pixel values and back exactly.
SCALE = 1024


class CountingImages(Images):
    """Image i holds the number i / SCALE in its first channel and its augmentation's draw in the second."""

    def __init__(self, count: int, bad: int | None = None, signalled: tuple[int, signal.Signals] | None = None) -> None:
        self.count = count
        self.bad = bad
        self.signalled = signalled

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.count) % 3

    @property
    def fingerprint(self) -> str:
        return str(self.count)

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        if self.bad in indices:
            raise RunError("a broken image", where="17.jpg", hint="remove it")
        if self.signalled and self.signalled[0] in indices:
            os.kill(os.getpid(), self.signalled[1])
        rows = torch.tensor(indices)
        noise = torch.zeros(len(rows)) if draws is None else draws.uniform()
        images = torch.stack([rows / SCALE, noise, noise], dim=1)[:, :, None, None]
        return ImageBatch(images=images, labels=self.labels[rows], indices=rows)


def batches(images: Images, *, start: int = 0, total: int = 10, rank: int = 0, world: int = 1, **options: int):
    settings = {"seed": 3, "global_batch": 8, "accumulation": 1, "workers": 0, **options}
    return list(training_batches(images, rank=rank, world=world, start_step=start, total_steps=total, **settings))


def rows_of(steps: list[list[ImageBatch]]) -> Tensor:
    """(steps, global batch, 3): every number that was loaded, in order."""
    loaded = torch.stack([torch.cat([batch.images[:, :, 0, 0] for batch in step]) for step in steps])
    return loaded * torch.tensor([SCALE, 1, 1])


def test_an_epoch_reads_every_image_at_most_once_and_drops_the_incomplete_batch() -> None:
    images = CountingImages(29)
    assert steps_per_epoch(images, 8) == 3
    first, second = rows_of(batches(images, total=6))[:, :, 0].reshape(2, 24)
    assert len(set(first.tolist())) == len(set(second.tolist())) == 24
    assert first.tolist() != second.tolist()


def test_every_image_is_read_in_some_epoch() -> None:
    seen = rows_of(batches(CountingImages(29), total=60))[:, :, 0]
    assert set(seen.flatten().tolist()) == set(range(29))


@pytest.mark.parametrize("start", [1, 3, 7])
def test_resuming_gives_the_batches_of_an_uninterrupted_run(start: int) -> None:
    images = CountingImages(29)
    assert torch.equal(rows_of(batches(images, start=start)), rows_of(batches(images))[start:])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_load_the_rows_of_one_with_the_same_augmentation(accumulation: int) -> None:
    images = CountingImages(29)
    whole = rows_of(batches(images))
    parts = [batches(images, rank=rank, world=2, accumulation=accumulation) for rank in range(2)]
    joined = [[part[step][m] for m in range(accumulation) for part in parts] for step in range(10)]
    assert torch.equal(rows_of(joined), whole)
    assert [len(batch) for batch in parts[0][0]] == [8 // (2 * accumulation)] * accumulation


def test_workers_load_what_the_main_process_loads() -> None:
    images = CountingImages(29)
    assert torch.equal(rows_of(batches(images, workers=2)), rows_of(batches(images)))


def test_augmentation_depends_on_seed_epoch_and_image_only() -> None:
    images = CountingImages(24)
    of_image = [dict(row[:2] for row in rows_of(batches(images, total=3)).flatten(0, 1).tolist())]
    of_image += [dict(row[:2] for row in rows_of(batches(images, total=6, global_batch=4)).flatten(0, 1).tolist())]
    second_epoch = dict(row[:2] for row in rows_of(batches(images, start=3, total=6)).flatten(0, 1).tolist())
    other_seed = dict(row[:2] for row in rows_of(batches(images, total=3, seed=4)).flatten(0, 1).tolist())
    assert of_image[0] == of_image[1]
    assert all(of_image[0][i] != second_epoch[i] and of_image[0][i] != other_seed[i] for i in range(24))


def test_loading_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    batches(CountingImages(29))
    batches(CountingImages(29), total=2, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_error_in_a_worker_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(RunError) as caught:
        batches(CountingImages(8, bad=5), workers=workers)
    assert str(caught.value) == "17.jpg: a broken image (remove it)"
    assert caught.value.exit_code == 1


def test_a_killed_worker_is_one_message() -> None:
    with pytest.raises(
        RunError, match=r"data loader: a process that loads images was killed .*\(SIGKILL\).*fewer workers"
    ):
        batches(CountingImages(8, signalled=(5, signal.SIGKILL)), workers=1)


def test_an_interrupt_from_the_keyboard_is_left_to_the_main_process() -> None:
    images = CountingImages(8, signalled=(5, signal.SIGINT))
    assert torch.equal(rows_of(batches(images, workers=1)), rows_of(batches(CountingImages(8))))


@pytest.mark.parametrize(
    "error",
    [
        RobustokError("what", where="place", hint="hint", exit_code=1),
        RunError("what", where="place"),
        Interrupted("stopped", hint="run again"),
        ProblemsError([RobustokError("one", where="a"), RobustokError("two", hint="b")]),
    ],
)
def test_every_user_error_can_be_sent_between_processes(error: RobustokError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.args, copy.exit_code) == (str(error), error.args, error.exit_code)
    assert (copy.where, copy.hint) == (error.where, error.hint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"global_batch": 6, "world": 2, "accumulation": 2},
            r"\(2 processes x 2 micro-batches\) \(choose a multiple of 4\)",
        ),
        ({"global_batch": 30}, "30 images is larger than the training split, which holds 29 .*at most 29"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_before_anything_is_read(options: dict, message: str) -> None:
    settings = {"seed": 0, "accumulation": 1, "rank": 0, "world": 1, "start_step": 0, "total_steps": 1, "workers": 0}
    with pytest.raises(RobustokError, match=message):
        training_batches(CountingImages(29), **{**settings, **options})


@pytest.mark.parametrize("world", [1, 2, 3, 40])
@pytest.mark.parametrize("limit", [None, 7, 100])
def test_evaluation_covers_every_image_once_over_all_processes(world: int, limit: int | None) -> None:
    images = CountingImages(29)
    shares = [
        list(evaluation_batches(images, batch_size=4, rank=rank, world=world, limit=limit)) for rank in range(world)
    ]
    found = [index for share in shares for batch in share for index in batch.indices.tolist()]
    assert sorted(found) == sorted(set(found))
    assert len(found) == min(limit or 29, 29)
    assert all(batch.indices.diff().gt(0).all() for share in shares for batch in share)  # files are read in order
    assert all(len(batch) <= 4 for share in shares for batch in share)


def test_evaluation_does_not_augment_and_workers_change_nothing() -> None:
    images = CountingImages(29)
    plain, worked = (
        torch.cat([b.images for b in evaluation_batches(images, batch_size=5, rank=0, world=1, workers=workers)])
        for workers in (0, 1)
    )
    assert torch.equal(plain, worked)
    assert (SCALE * plain[:, 0, 0, 0]).tolist() == list(range(29))
    assert not plain[:, 1].any()


@pytest.mark.parametrize(("classes", "each"), [(10, 100), (1000, 5), (3, 30), (7, 3)])
def test_balanced_halves_hold_every_class_alike(classes: int, each: int) -> None:
    labels = torch.arange(classes).repeat_interleave(each)[epoch_order(classes * each, seed=0, epoch=0)]
    halves = balanced_halves(labels)
    assert torch.cat(halves).sort().values.tolist() == list(range(len(labels)))
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    first, second = (torch.bincount(labels[rows], minlength=classes) for rows in halves)
    assert int((first - second).abs().max()) <= 1


def test_a_class_balanced_order_takes_turns() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 4)
    order = class_balanced_order(labels)
    assert sorted(order.tolist()) == list(range(12))
    assert torch.bincount(labels[order[:9]]).tolist() == [3, 3, 3]
    assert torch.bincount(labels[order[:11]]).tolist() == [4, 3, 4]
    assert [i for i in order.tolist() if labels[i] == 0] == [0, 1, 2, 3, 4]


def test_a_limit_below_the_number_of_classes_does_not_select_the_first_classes() -> None:
    labels = torch.arange(100).repeat_interleave(3)
    chosen = labels[class_balanced_order(labels)[:20]]
    assert len(chosen.unique()) == 20
    assert chosen.max() > 50
