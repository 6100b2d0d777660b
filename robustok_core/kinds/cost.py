"""What a stage will take, known before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen


@frozen(kw_only=True)
class Work:
    """A computation that a stage makes for many images.

    Attributes:
        name: "training", "encoding". images: how often it is made, over all processes.
        flops: floating-point operations for one image. bf16: whether they are in bfloat16, else in float32.
    """

    name: str
    images: float
    flops: float
    bf16: bool = False

    @property
    def total(self) -> float:
        """Operations for all images."""
        return self.images * self.flops


@frozen(kw_only=True)
class Memory:
    """What a stage holds in the memory of each GPU.

    Attributes:
        fixed: bytes that do not depend on the batch, by what they are for.
        per_image: bytes of the activations of one image. images: images at once on each GPU.
    """

    fixed: Mapping[str, int]
    per_image: int
    images: int

    @property
    def total(self) -> int:
        """Bytes of all."""
        return sum(self.fixed.values()) + self.per_image * self.images

    def most_images(self, capacity: float) -> int:
        """The largest number of images at once for `capacity` bytes; 0 if not even one fits."""
        return max(0, int((capacity - sum(self.fixed.values())) // max(self.per_image, 1)))

    def fits(self, capacity: float) -> bool:
        """Whether `capacity` bytes hold it."""
        return self.most_images(capacity) >= self.images


@frozen(kw_only=True)
class Cost:
    """What a stage will take.

    Attributes:
        trained, frozen: parameters. steps: of its optimiser, of all its trainings together.
        work: what it computes. memory: of each GPU where it takes most; None if that is not known.
        disk: bytes by what is written; what is removed when the stage ends included.
        notes: what this leaves out, and how it was counted where that is not plain, a sentence each.
    """

    trained: int = 0
    frozen: int = 0
    steps: int = 0
    work: Sequence[Work] = ()
    memory: Memory | None = None
    disk: Mapping[str, int] = field(factory=dict)
    notes: Sequence[str] = ()
