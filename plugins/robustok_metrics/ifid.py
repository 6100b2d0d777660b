"""Metric `ifid`: the distance between originals and what is decoded on the way to a similar training image.

iFID (arXiv 2603.05630) is a rival of pFID. For each image, one of the most similar training images is drawn, in the
latent space; the latents halfway between both are decoded. docs/metrics.md has the exact definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.recipe.validators import in_range, unit_interval
from robustok_core.values.full_precision import full_precision
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.latents import LatentSpace
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.frechet import frechet_name
from robustok_metrics.reconstruction_distances import ReconstructionDistances
from robustok_toolkit.latent_neighbours import LatentNeighbours, between

Interpolation = Literal["slerp", "linear", "mask", "quantized"]
_OF_VECTORS = ("slerp", "linear", "mask")
_OF_CODES = ("mask", "quantized")


@frozen(kw_only=True)
class IFIDConfig:
    """The feature network, the neighbours and the way between."""

    features: Spec = component(
        "features",
        doc="feature network; must not be one that a loss was trained with",
        default={"use": "efficientnet_lite0"},
    )
    interpolation: Interpolation = field(
        default="slerp",
        validator=validators.in_(get_args(Interpolation)),
        metadata={
            "doc": "the way to the neighbour: slerp (the paper's, of vectors), linear, mask (the first half of the "
            "tokens is the neighbour's; of codes, too), or quantized (slerp, then the nearest codewords)"
        },
    )
    weight: float = field(
        default=0.5, validator=unit_interval, metadata={"doc": "how far to go to the neighbour; not of mask"}
    )
    neighbours: int = field(
        default=10,
        validator=in_range(1, 1000),
        metadata={"doc": "most similar training images, of which one is drawn"},
    )
    train_images: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": "number of training images among which neighbours are sought, class-balanced; default: all"},
    )

    def __attrs_post_init__(self) -> None:
        if self.train_images is not None and self.train_images < self.neighbours:
            raise ValueError(f"train_images is {self.train_images}, fewer than neighbours, {self.neighbours}")
        refuse_ignored(self, "weight", unless=self.interpolation != "mask", needs="an interpolation other than mask")

    @property
    def is_papers(self) -> bool:
        """Whether the definition is the paper's, with neighbours among all training images."""
        own = (self.interpolation, self.weight, self.neighbours, self.train_images)
        return own == ("slerp", 0.5, 10, None)


class IFID(Metric):
    """`ifid` for the published Inception and the paper's definition, else `ifd_FEATURES` or `ifd_WAY_FEATURES`.

    It needs the training images, whose latents are held in memory: 4 bytes for each number. The paper defines it for
    vectors; for codes the ways `mask` and `quantized` are ours. With another `weight`, other `neighbours` or only some
    training images, the name has the way, too. As with any Fréchet distance, compare only equal numbers of images. The
    detail `train_images` is the number of images among which neighbours were sought.
    """

    Config = IFIDConfig
    also_called = ("ifd", "interpolated_fid")
    needs_full_rank = True

    def __init__(self, config: IFIDConfig) -> None:
        self.config = config

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError if there is no such way in this latent space."""
        possible = _OF_VECTORS if space.codebook_size is None else _OF_CODES
        if self.config.interpolation not in possible:
            raise RobustokError(
                f"interpolation is {self.config.interpolation!r}, which this latent space does not have "
                f"({space.describe()})",
                where="metric ifid",
                hint=f"set interpolation to one of {', '.join(possible)}",
            )

    def check_train_images(self, count: int) -> None:
        """Raises RobustokError if there are fewer than `neighbours`."""
        if count < self.config.neighbours:
            what = f"it needs at least neighbours = {self.config.neighbours} training images, and there are {count}"
            raise RobustokError(what, where="metric ifid", hint="lower neighbours")

    def held_latents(self, count: int) -> int:
        """All, or `train_images`."""
        return min(count, self.config.train_images or count)

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [self._name_with(network(self.config.features))]

    def _name_with(self, features: Features) -> str:
        return (
            frechet_name("i", features) if self.config.is_papers else f"ifd_{self.config.interpolation}_{features.name}"
        )

    def start(self, context: EvaluationContext) -> None:
        """Encodes the training images.

        Raises:
            RobustokError: as `check` and `check_train_images`, and if the latents do not fit into memory.
        """
        self.check(context.tokenizer.space)
        self.check_train_images(0 if context.train is None else len(context.train))
        assert context.train is not None
        self.distances = ReconstructionDistances(context, self.config.features, ["images"])
        self.train = LatentNeighbours.encode(
            context.tokenizer,
            context.train,
            limit=self.config.train_images,
            cosine=self.config.interpolation != "linear",
            device=context.device,
        )

    def update(self, step: Evaluation) -> None:
        self.distances.add_real(step)
        self.distances.add("images", self.reconstruct(step))

    def reconstruct(self, step: Evaluation) -> Tensor:
        """(B, 3, H, W) images decoded between the images and their neighbours, rounded to 8 bits."""
        vectors = step.tokenizer.vectors_of(step.latents)
        with full_precision(vectors.device):
            draws, config = step.draws.child("ifid"), self.config
            neighbours = self.train.drawn(vectors, config.neighbours, draws)
            middle = draws.child("middle")
            way = between(vectors, neighbours, config.interpolation, config.weight, step.tokenizer, middle)
        return from_uint8(to_uint8(step.tokenizer.decode_vectors(way)))

    def state(self) -> Mapping[str, Tensor]:
        return self.distances.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.distances.load_state(state)

    def compute(self) -> Mapping[str, Result]:
        distance = self.distances.compute()["images"]
        details = {
            "interpolation": self.config.interpolation,
            "weight": self.config.weight,
            "neighbours": self.config.neighbours,
            "train_images": len(self.train),
        }
        result = Result(distance, higher_is_better=False, num_images=self.distances.num_images, details=details)
        return {self._name_with(self.distances.features): result}
