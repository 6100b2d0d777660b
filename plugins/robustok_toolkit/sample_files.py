"""The artifact "samples": its folder layout, and what is known before it is made.

samples.json     how the samples were made
samples.npz      ADM's sample file; grid.png shows some; codes.npy or vectors.npy holds their latents
"""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen, validators
from typing_extensions import Self

from robustok_core.kinds.component import Builder
from robustok_core.kinds.promise import Promise
from robustok_core.runs.records import read_record

INDEX = "samples.json"


@frozen(kw_only=True)
class SamplesIndex:
    """What is read of samples.json, which holds all options of the stage `sample`."""

    num_samples: int = field(validator=validators.ge(1))
    image_size: int = field(validator=validators.ge(1))
    latents_of: str | None = None


@frozen(kw_only=True)
class SamplesPromise(Promise):
    """`num_samples` decoded samples of image_size x image_size pixels."""

    num_samples: int
    image_size: int

    def describe(self) -> str:
        return f"{self.num_samples:,} images of {self.image_size} x {self.image_size}"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        index = read_record(SamplesIndex, folder / INDEX)
        return cls(num_samples=index.num_samples, image_size=index.image_size)
