"""Stage `generation_gap`: how much of a generator's distance from real images its codes cost, and how much the decoder.

The definition is ours. The same sampled latents are decoded twice: by the tokenizer, and by an oracle that answers with
a real image, the training image whose latents are most similar. Of the oracle's images none is blurred or broken, so
what is wrong with them is which ones the generator's latents ask for. Four sets of n images are measured against the
same real images: S, the decoded samples; O, the oracle's answers; T, training images; C, these, reconstructed. Then

    gap = S - T = (O - T) + (S - O) = codes + decoder

and the part of the decoder that has nothing to do with a generator is C - T. docs/metrics.md says how to read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import workers_range
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.runs.records import read_record
from robustok_core.values.latents import Latents
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_stages.checks import check_held_latents, check_image_size
from robustok_stages.generator.sample_evaluation import check_metrics, say_singular
from robustok_toolkit.array_files import read_array
from robustok_toolkit.generating import ImagesInMemory, decode_and_gather, gather_own, own_share
from robustok_toolkit.image_features import ExtractedFeatures, Extraction, SharedFeatures
from robustok_toolkit.latent_arrays import array_name, from_array
from robustok_toolkit.latent_files import check_latents_of
from robustok_toolkit.latent_neighbours import LatentNeighbours
from robustok_toolkit.sample_files import INDEX, SamplesIndex, SamplesPromise
from robustok_toolkit.some_images import SomeImages
from robustok_training.batches import class_balanced_order


@frozen(kw_only=True)
class GenerationGapConfig:
    """Options of `generation_gap`."""

    metric: Spec = component("sample_metric", doc="the distance that is split", default={"use": "frechet"})
    limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2)),
        metadata={"doc": "n: number of samples, and of training images to compare them with; default: all samples"},
    )
    train_images: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2)),
        metadata={"doc": "number of training images that the oracle knows, class-balanced; default: all"},
    )
    batch_size: int = field(default=100, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    workers: int = field(
        default=0, validator=workers_range, metadata={"doc": "processes that load images", "result": False}
    )


class GenerationGap(Stage):
    """Splits the distance of the artifact "samples" from the validation images of [data].

    The results are named after the metric's first, for example `gap_gfd_FEATURES`, `gap_codes_gfd_FEATURES`,
    `gap_decoder_gfd_FEATURES` and `gap_reconstruction_gfd_FEATURES`. The first one's details hold the four distances.
    After post-training, the samples are decoded by the new decoder.
    """

    Config = GenerationGapConfig
    uses = ("data",)
    needs = ("tokenizer", "samples")

    def __init__(self, config: GenerationGapConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The tokenizer fits the images, and there are enough samples and training images."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        check_image_size(context, tokenizer)
        samples, dataset = context.promise("samples", SamplesPromise), context.dataset()
        count = min(samples.num_samples, self.config.limit or samples.num_samples)
        known = min(len(dataset.train), self.config.train_images or len(dataset.train))
        if known < count:
            what = f"{count} samples are compared with as many training images, and there are {known}"
            raise context.located(RobustokError(what, hint=f"set limit = {known}"), "limit")
        check_held_latents(context, tokenizer.space, known, "train_images")
        check_metrics(context, {"metric": self.config.metric}, count, len(dataset.validation))

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, Result]:
        """Encodes the training images, and measures four sets of images."""
        tokenizer: Any = context.load("tokenizer")
        extraction = Extraction(
            networks=SharedFeatures(context.device),
            device=context.device,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            console=context.console,
        )
        latents, train = self._sampled(context, tokenizer), context.dataset().train
        say_singular(context, {"metric": self.config.metric}, extraction.networks, len(latents))
        metric = self.config.metric.build()
        held_out = context.dataset().validation
        reference = ExtractedFeatures(held_out, extraction, name="validation images", cache=context.cache)
        found: dict[str, Result] = {}
        for name, images in self._sets(context, tokenizer, latents, train):
            context.say(f"{context.stage}: measuring {name}")
            measured = ExtractedFeatures(images, extraction, name=name)
            results: Mapping[str, Result] = metric.compute(measured, reference)
            main, found[name] = next(iter(results.items()))
        return split(main, found)

    def _sets(
        self, context: StageContext, tokenizer: Tokenizer, latents: Latents, train: Images
    ) -> Iterator[tuple[str, Images]]:
        """The four sets, by name."""
        limit = self.config.train_images
        known = LatentNeighbours.encode(tokenizer, train, limit=limit, cosine=True, device=context.device)
        rows = class_balanced_order(train.labels)[: len(latents)].sort().values
        yield "samples", self._decoded(context, tokenizer, latents)
        yield "oracle", SomeImages(train, self._answers(context, tokenizer, latents, known))
        yield "training images", SomeImages(train, rows)
        encoded = known.vectors[torch.searchsorted(known.indices, rows).to(known.vectors.device)]
        yield "reconstructions", self._decoded(context, tokenizer, Latents(vectors=encoded))

    def _sampled(self, context: StageContext, tokenizer: Tokenizer) -> Latents:
        folder: Path = context.inputs["samples"]
        index = read_record(SamplesIndex, folder / INDEX)
        if index.latents_of is not None:
            check_latents_of(folder, index.latents_of, latent_fingerprint(tokenizer))
        array = read_array(folder / f"{array_name(tokenizer.space)}.npy", mapped=True)
        return from_array(array[: self.config.limit], tokenizer.space, "samples")

    def _decoded(self, context: StageContext, tokenizer: Tokenizer, latents: Latents) -> ImagesInMemory:
        batches = (part.to(context.device) for part in self._own_batches(latents))
        return decode_and_gather(tokenizer, batches, torch.zeros(len(latents), dtype=torch.int64))

    def _own_batches(self, latents: Latents) -> Iterator[Latents]:
        for rows in own_share(len(latents)).split(self.config.batch_size):
            yield latents[rows]

    def _answers(
        self, context: StageContext, tokenizer: Tokenizer, latents: Latents, known: LatentNeighbours
    ) -> Tensor:
        """(n,) int64: for each sample the training image whose latents are most similar."""
        parts = [known.nearest(tokenizer.vectors_of(part.to(context.device))) for part in self._own_batches(latents)]
        own = torch.cat([torch.empty(0, dtype=torch.int64), *parts])
        return gather_own(own, len(latents))


def split(main: str, found: Mapping[str, Result]) -> dict[str, Result]:
    """The parts of a gap, which add up: codes + decoder = gap.

    Args:
        main: the name of the distance. found: of "samples", "oracle", "training images" and "reconstructions".
    """
    value = {name: result.value for name, result in found.items()}
    parts = {
        "gap": value["samples"] - value["training images"],
        "gap_codes": value["oracle"] - value["training images"],
        "gap_decoder": value["samples"] - value["oracle"],
        "gap_reconstruction": value["reconstructions"] - value["training images"],
    }
    like = found["samples"]
    result = partial(
        Result,
        higher_is_better=like.higher_is_better,
        num_images=like.num_images,
        num_reference=like.num_reference,
    )
    details = {f"{name}_{main}".replace(" ", "_"): number for name, number in value.items()}
    return {
        f"{name}_{main}": result(number, details=details if name == "gap" else {}) for name, number in parts.items()
    }
