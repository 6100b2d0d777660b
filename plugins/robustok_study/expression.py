"""What a study measures: a result by "stage/name", or the difference or ratio of two."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import frozen

from robustok_core.values.result import Result
from robustok_core.values.wording import short_text

_OPERATIONS: Mapping[str, Callable[[float, float], float]] = {"-": lambda a, b: a - b, "/": lambda a, b: a / b}
_NAME = re.compile(r"[^\s/]+/[^\s/]+")
_FORM = '"STAGE/RESULT", "STAGE/RESULT - STAGE/RESULT" or "STAGE/RESULT / STAGE/RESULT"'


@frozen
class Expression:
    """A result, or two with an operation between them.

    Attributes:
        names: one or two, as in results.json. operation: "-" or "/", or "" for one name.
    """

    names: tuple[str, ...]
    operation: str = ""

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Reads an expression; there are spaces around its operation.

        Raises:
            ValueError: if it is none.
        """
        parts = text.split(" ")
        if len(parts) == 3 and parts[1] in _OPERATIONS and all(map(_NAME.fullmatch, parts[::2])):
            return cls((parts[0], parts[2]), parts[1])
        if len(parts) == 1 and _NAME.fullmatch(text):
            return cls((text,))
        raise ValueError(f"{short_text(text)} is not a metric: expected {_FORM}")

    def __str__(self) -> str:
        return f" {self.operation} ".join(self.names)

    def value(self, results: Mapping[str, Result]) -> Result:
        """The value in a run.

        Raises:
            ValueError: no such result, two results of unequal numbers of images, or a second one of 0.
        """
        if missing := [name for name in self.names if name not in results]:
            raise ValueError(f"no stage gave {missing[0]}")
        found = [results[name] for name in self.names]
        if not self.operation:
            return found[0]
        first, second = found
        if (one := _counts(first)) != (other := _counts(second)):
            what = f"{self.names[0]} was measured with {_counts_text(one)}, {self.names[1]} with {_counts_text(other)}"
            raise ValueError(f"{what}: distances of unequal numbers of images have no meaningful difference or ratio")
        if self.operation == "/" and second.value == 0:
            raise ValueError(f"{self.names[1]} is 0")
        return Result(
            _OPERATIONS[self.operation](first.value, second.value),
            higher_is_better=first.higher_is_better if self.operation == "-" else None,
            num_images=first.num_images,
            num_reference=first.num_reference,
        )

    def size(self, results: Mapping[str, Result]) -> float:
        """The larger of the two numbers whose difference the value in a run is, without its sign; 0 if it is none."""
        return max(abs(results[name].value) for name in self.names) if self.operation == "-" else 0.0


def _counts(result: Result) -> tuple[int | None, int | None]:
    """The numbers of images and of real images; a reconstruction is compared with as many."""
    return result.num_images, result.num_images if result.num_reference is None else result.num_reference


def _counts_text(counts: tuple[int | None, int | None]) -> str:
    if counts[0] is None:
        return "no number of images"
    return f"{counts[0]:,} images against {counts[1]:,}"
