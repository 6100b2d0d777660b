"""Decoding of codes one by one, with cached keys and values.

Where steps may have any shape, each attends to the positions before it. Steps of a fixed shape, which can be compiled
and captured, attend to a window in which later positions are masked. Before these, what precedes the codes is computed
once a class, also for all the rows without a class that guidance needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from robustok_generators.key_value_cache import FixedCache, KeyValueCache, Window
from robustok_generators.repeated_step import Execution, RepeatedStep, fixes_shapes, repeated, uncompiled

#: Sizes of the windows of steps that are captured: with 8, a step reads 56 % of a cache on average. Compiling takes
#: longer, so that there is only one.
_WINDOWS = 8


class Decodes(Protocol):
    """Decodes rows of codes in raster order."""

    def start(self) -> Tensor:
        """Logits (rows, K) of the first code."""

    def advance(self, codes: Tensor) -> Tensor:
        """Logits (rows, K) of the next code after the last codes (rows,) int64."""


class Decoding(ABC):
    """The state of a model that decodes rows of codes.

    Args:
        blocks: the layers with attention.
        length: number of inputs: codes, and what precedes them.
        device: the model's.

    Attributes:
        position: number of inputs so far.
        place: (1,) int64, the position of the present input, on the device.
        caches: of each block.
    """

    def __init__(self, blocks: nn.ModuleList, length: int, device: torch.device) -> None:
        self.blocks, self.length, self.position = blocks, length, 0
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.caches: Sequence[KeyValueCache | FixedCache] = [KeyValueCache(length) for _ in blocks]
        self.window: Window | None = None

    @abstractmethod
    def start(self) -> Tensor:
        """Logits (rows, K) of the first code."""

    @abstractmethod
    def step(self, codes: Tensor) -> Tensor:
        """Logits (rows, K) of the next code after the codes (rows,) int64 at `place`; it may be repeated."""

    def advance(self, codes: Tensor) -> Tensor:
        """Logits (rows, K) of the next code after the last codes (rows,) int64."""
        self.move()
        return self.step(codes)

    def move(self) -> None:
        """To the next position: all of a step that depends on numbers in Python."""
        self.place.fill_(self.position)
        if self.window is not None:
            self.window.move(self.position)
        self.position += 1

    def fix(self, row: Tensor, windows: int) -> None:
        """From now on, steps differ in shape only by the size of the window.

        Args:
            row: (rows,) int64, for each row from now on which of those so far it continues.
            windows: number of sizes.
        """
        prefixes = [cache for cache in self.caches if isinstance(cache, KeyValueCache)]
        keys, _ = prefixes[0].so_far()
        self.window = Window(self.position, self.length, sizes=windows, dtype=keys.dtype, device=keys.device)
        self.caches = [FixedCache(prefix, row, self.window) for prefix in prefixes]


class FixedDecoding:
    """Decodes in steps of a fixed shape.

    Args:
        decoding: of distinct classes, not yet started.
        row: (rows,) int64, the index of each row's class among them.
        step: the decoding's step.
        windows: number of sizes of the window.
    """

    def __init__(self, decoding: Decoding, row: Tensor, step: RepeatedStep, windows: int) -> None:
        self._decoding, self._row, self._step, self._windows = decoding, row, step, windows

    def start(self) -> Tensor:
        """Logits (rows, K) of the first code."""
        with uncompiled():
            logits = self._decoding.start()
        self._decoding.fix(self._row, self._windows)
        return logits.index_select(0, self._row)

    def advance(self, codes: Tensor) -> Tensor:
        """Logits (rows, K) of the next code after the last codes (rows,) int64."""
        self._decoding.move()
        assert self._decoding.window is not None
        return self._step(codes, window=self._decoding.window.size)


@contextmanager
def decoding_as(execution: Execution, begin: Callable[[Tensor], Decoding], labels: Tensor) -> Iterator[Decodes]:
    """Decoding of rows with labels (rows,), inside the block.

    Args:
        execution: the sampler's option.
        begin: begins the model's decoding for labels.
        labels: (rows,) int64.
    """
    fixed = fixes_shapes(execution, labels.device)
    classes, row = labels.unique(return_inverse=True) if fixed else (labels, labels)
    decoding = begin(classes)
    with repeated(decoding.step, decoding.blocks, execution, labels.device) as step:
        windows = 1 if execution == "compile" else _WINDOWS
        yield FixedDecoding(decoding, row, step, windows) if fixed else decoding
