"""Random numbers that are functions of (seed, names, index), never of what ran before.

Row i of a draw depends only on the seed and on index i, so a sample gets the same numbers however a batch is split,
distributed over processes or resumed. The generator is counter-based (SplitMix64's output function over seed, index
and counter; Steele et al. 2014), in integer arithmetic that is the same on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from attrs import evolve, field, frozen
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable values: equal values give equal seeds on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Seeds torch's global generators inside the block (initial weights are drawn from them)."""
    with _generators_kept():
        torch.manual_seed(derive_seed(*parts))
        yield


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Leaves torch's global generators as they were; `torch.manual_seed` seeds those of all devices."""
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    on_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        if on_mps is not None:
            torch.mps.set_rng_state(on_mps)
        if on_cuda is not None:
            torch.cuda.set_rng_state_all(on_cuda)
        else:  # a CUDA that is not in use yet takes the last seed when it is: let that be the program's
            torch.cuda.manual_seed_all(torch.initial_seed())


def _shift_right(bits: Tensor, by: int) -> Tensor:
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    return bits ^ _shift_right(bits, 31)


@frozen(kw_only=True, eq=False)
class Draws:
    """The random numbers of one batch.

    Attributes:
        seed: from `derive_seed`; `child` makes an independent stream.
        indices: (B,) int64, the index of each row among all rows, on the device of the draws.
        known: the same on the CPU, where draws of another device know it without asking that device; else None.
        total: the number of all rows (a step's global batch, or a pass's data set). `chosen` picks among
            all of them, so that every process makes the same choice.
    """

    seed: int
    indices: Tensor
    total: int = field()
    known: Tensor | None = None

    @classmethod
    def for_rows(cls, seed: int, count: int, device: torch.device | str = "cpu") -> Draws:
        """Draws for `count` rows, all of them on this process."""
        return cls.for_part(seed, range(count), count, device)

    @classmethod
    def for_part(cls, seed: int, rows: range, total: int, device: torch.device | str = "cpu") -> Draws:
        """Draws for some of `total` rows."""
        on_device, on_cpu = (torch.arange(rows.start, rows.stop, device=place) for place in (device, "cpu"))
        return cls(seed=seed, indices=on_device, total=total, known=on_cpu)

    def child(self, *names: object) -> Draws:
        """An independent stream for the same rows, identified by `names`."""
        return evolve(self, seed=derive_seed(self.seed, *names))

    def __getitem__(self, rows: slice | Tensor) -> Draws:
        """The same stream for some of the rows."""
        asks = self.known is None or (isinstance(rows, Tensor) and not rows.is_cpu)
        return evolve(self, indices=self.indices[rows], known=None if asks else self.known[rows])  # type: ignore[index]

    def to(self, device: torch.device | str) -> Draws:
        """The same stream, computed on another device."""
        return evolve(self, indices=self.indices.to(device))

    def on_cpu(self) -> Draws:
        """The same stream on the CPU, for choices that a program must know; integers are the same on every device."""
        if self.indices.is_cpu:
            return self
        return self.to("cpu") if self.known is None else evolve(self, indices=self.known)

    def bits(self, *shape: int) -> Tensor:
        """(B, *shape) int64, each of 63 random bits."""
        return self._bits(self.indices, shape)

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) float32, uniform in [0, 1)."""
        return self._unit(self.bits(*shape))

    def integers(self, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64, uniform in [0, high)."""
        return self.bits(*shape) % high

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32, standard normal (Box-Muller)."""
        pair = self.bits(*shape, 2)
        radius = torch.sqrt(-2.0 * torch.log1p(-self._unit(pair[..., 0])))
        return radius * torch.cos(2.0 * math.pi * self._unit(pair[..., 1]))

    def chosen(self, count: int) -> Tensor:
        """(B,) bool: whether each row is among exactly `count` rows drawn from all `total`."""
        everyone = torch.arange(self.total, device=self.indices.device)
        order = torch.argsort(self._bits(everyone, ()), stable=True)
        mask = torch.zeros(self.total, dtype=torch.bool, device=self.indices.device)
        mask[order[:count]] = True
        return mask[self.indices]

    def generator(self, *names: object) -> torch.Generator:
        """A CPU generator for draws that concern the global batch, the same on every process."""
        return torch.Generator().manual_seed(derive_seed(self.seed, *names))

    @staticmethod
    def _unit(bits: Tensor) -> Tensor:
        return (bits >> 39).to(torch.float32) * 2.0**-24

    def _bits(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        counter = torch.arange(math.prod(shape), device=indices.device) * _GOLDEN
        row = _mix(indices * _GOLDEN + (self.seed ^ _MIX_2))
        mixed = _mix(_mix(row[:, None] + counter[None, :]) + _GOLDEN)
        return _shift_right(mixed, 1).reshape(len(indices), *shape)
