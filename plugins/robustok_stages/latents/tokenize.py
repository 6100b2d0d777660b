"""Stage `tokenize`: encodes a data set once, to the latents that generators are trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from attrs import field, frozen, validators
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.cost import Cost, Work
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import workers_range
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.precision import Precision, autocast
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.values.ignored import refuse_ignored
from robustok_stages.checks import check_image_size, check_of_space, warn
from robustok_stages.costs import encoding, in_bf16, latent_bytes, parameters, tokenizer_of
from robustok_stages.latents.crops_for_training import MIDDLE_OF_TEN, all_ten_crops, with_mirrored
from robustok_toolkit.latent_arrays import VectorType, array_name, to_array
from robustok_toolkit.latent_files import LatentsPromise, SplitShards, write_latents
from robustok_toolkit.resumable_shards import Shard, cut, make_missing, whole_batches
from robustok_training.batches import batches_of


@frozen(kw_only=True)
class TokenizeConfig:
    """Options of `tokenize`."""

    views: Literal["center", "flip", "ten_crop"] = field(
        default="center",
        metadata={
            "doc": "views of each training image: the image; with its mirror image; or five crops of an enlarged image "
            "and their mirror images, for each of crop_ranges. Validation images have one view"
        },
    )
    crop_ranges: list[float] = field(
        factory=lambda: [1.1],
        validator=[validators.min_len(1), validators.deep_iterable(validators.ge(1.0))],
        metadata={"doc": "sizes of the enlarged images for ten_crop, in units of the image size"},
    )
    dtype: VectorType = field(
        default="float32", metadata={"doc": "type in which vectors of a continuous space are stored"}
    )
    precision: Precision = field(
        default="no", metadata={"doc": 'the encoder\'s precision: "no" (float32), "bf16" or "auto"'}
    )
    batch_size: int = field(default=64, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    part_size: int = field(
        default=4096,
        validator=validators.ge(1),
        metadata={
            "doc": "images per shard, rounded up to whole batches; a killed run repeats at most this many per process",
            "result": False,
        },
    )
    workers: int = field(
        default=0, validator=workers_range, metadata={"doc": "processes that load images", "result": False}
    )

    def __attrs_post_init__(self) -> None:
        refuse_ignored(self, "crop_ranges", unless=self.views == "ten_crop", needs='views = "ten_crop"')


@frozen(kw_only=True)
class _Split:
    """A split to tokenize: its images, and how a batch of them is cut into views.

    Attributes:
        name: "train" or "validation".
        sources: the same images in one or several sizes.
        views: number of views per image. middle: index of the centre view.
        cut: maps a batch of every source to the views (b, 3, S, S).
    """

    name: str
    sources: Sequence[Images]
    views: int
    middle: int
    cut: Callable[[Sequence[Tensor]], list[Tensor]]

    def __len__(self) -> int:
        return len(self.sources[0])

    @property
    def labels(self) -> Tensor:
        return self.sources[0].labels


class Tokenize(Stage):
    """Encodes both splits of [data] with the artifact "tokenizer" and writes the artifact "latents"."""

    Config = TokenizeConfig
    uses = ("data",)
    needs = ("tokenizer",)
    makes = ("latents",)

    def __init__(self, config: TokenizeConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The image sizes agree, no option is for another latent space, and the data set has ten crops if asked for."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        check_image_size(context, tokenizer)
        check_of_space(context, self.config, tokenizer.space, of_vectors=["dtype"])
        if self.config.views == "ten_crop":
            self._check_ten_crop(context)

    def _check_ten_crop(self, context: StageContext) -> None:
        """Checks that the data set has images of the sizes that are cut; warns if they are no larger than the crops."""
        size = context.dataset().image_size
        for enlarged in self._enlarged_sizes(size):
            if enlarged == size:
                what = f"images of {size} pixels are not enlarged by each of {self.config.crop_ranges}"
                hint = "five crops of such an image are one and the same: set larger numbers"
                warn(context, RobustokError(what, hint=hint), "crop_ranges")
            try:
                _config_of_size(context, enlarged)
            except ValueError as error:
                raise context.located(RobustokError(f"images of {enlarged} pixels: {error}"), "crop_ranges") from error

    def _enlarged_sizes(self, size: int) -> list[int]:
        return [int(scale * size) for scale in self.config.crop_ranges]

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The latent space, the classes and the number of training images."""
        tokenizer, dataset = context.promise("tokenizer", TokenizerPromise), context.dataset()
        promise = LatentsPromise(
            space=tokenizer.space,
            class_names=dataset.class_names,
            num_rows=len(dataset.train),
            tokenizer=tokenizer.origin,
        )
        return {"latents": promise}

    def cost(self, context: StageContext) -> Cost | None:
        """Encoding every view of every image; the latents, and their shards until they are merged."""
        tokenizer, dataset = tokenizer_of(context), context.dataset()
        if tokenizer is None:
            return None
        images = len(dataset.train) * self._num_views() + len(dataset.validation)
        bf16 = in_bf16(context, self.config.precision)
        size = images * latent_bytes(tokenizer.space, half=self.config.dtype != "float32")
        return Cost(
            frozen=parameters(tokenizer),
            work=[Work(name="encoding", images=images, flops=encoding(tokenizer, bf16=bf16), bf16=bf16)],
            disk={"latents": size},
        )

    def _num_views(self) -> int:
        return {"center": 1, "flip": 2, "ten_crop": 10 * len(self.config.crop_ranges)}[self.config.views]

    def result_names(self) -> Sequence[str]:
        return ["train_images", "views"]

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, float]:
        """Makes the missing shards and merges all shards."""
        tokenizer: Tokenizer = context.load("tokenizer")
        splits = [self._training_split(context), _one_view("validation", context.dataset().validation)]
        shards = [self._make_shards(context, tokenizer, split) for split in splits]
        dataset, options = context.dataset(), attrs.asdict(self.config)
        with context.making("latents") as folder:
            if folder is not None:
                write_latents(
                    folder,
                    context.checkpoints,
                    shards,
                    space=tokenizer.space,
                    tokenizer=latent_fingerprint(tokenizer),
                    class_names=dataset.class_names,
                    data={split.name: split.sources[0].fingerprint for split in splits},
                    options={name: options[name] for name in ("views", "crop_ranges", "precision")},
                )
        context.discard_checkpoints()
        return {"train_images": float(len(splits[0])), "views": float(splits[0].views)}

    def _training_split(self, context: StageContext) -> _Split:
        train, size = context.dataset().train, context.dataset().image_size
        if self.config.views == "center":
            return _one_view("train", train)
        if self.config.views == "flip":
            return _Split(
                name="train", sources=[train], views=2, middle=0, cut=lambda batches: with_mirrored(batches[0])
            )
        sources = [_enlarged(context, enlarged) for enlarged in self._enlarged_sizes(size)]
        return _Split(
            name="train",
            sources=sources,
            views=self._num_views(),
            middle=MIDDLE_OF_TEN,
            cut=lambda batches: all_ten_crops(batches, size),
        )

    def _make_shards(self, context: StageContext, tokenizer: Tokenizer, split: _Split) -> SplitShards:
        """Makes the missing shards of a split; returns a description of all of them."""
        size = whole_batches(self.config.part_size, self.config.batch_size)
        all_shards = cut(split.name, len(split), size)
        name = array_name(tokenizer.space)

        def make(shards: Sequence[Shard], done: Callable[[int], None]) -> Iterator[dict[str, NDArray[Any]]]:
            batches = self._batches(context, split, shards)
            for shard in shards:
                arrays: list[NDArray[Any]] = []
                while sum(map(len, arrays)) < len(shard):
                    arrays.append(self._encode(context, tokenizer, split.cut(next(batches))))
                    done(len(arrays[-1]))
                yield {name: np.concatenate(arrays)}

        make_missing(context, all_shards, [name], make)
        return SplitShards(
            name=split.name, array=name, parts=all_shards, views=split.views, middle=split.middle, labels=split.labels
        )

    def _batches(self, context: StageContext, split: _Split, shards: Sequence[Shard]) -> Iterator[list[Tensor]]:
        """For each batch of the shards, the images (b, 3, h, w) of every source."""
        if not shards:
            return
        rows = torch.cat([torch.arange(shard.first, shard.stop) for shard in shards])
        size, workers = self.config.batch_size, self.config.workers
        sources = [batches_of(source, rows, batch_size=size, workers=workers) for source in split.sources]
        for batches in zip(*sources, strict=True):
            yield [batch.images.to(context.device) for batch in batches]

    def _encode(self, context: StageContext, tokenizer: Tokenizer, views: Sequence[Tensor]) -> NDArray[Any]:
        """(b, views, N) codes or (b, views, N, D) vectors, in the type in which they are stored."""
        arrays, where = [], f"stage {context.stage}"
        for images in views:
            with autocast(self.config.precision, context.device):
                latents = tokenizer.encode(images)
            arrays.append(to_array(latents, tokenizer.space, maker="encoder", where=where, dtype=self.config.dtype))
        return np.stack(arrays, 1)


def _one_view(name: str, images: Images) -> _Split:
    return _Split(name=name, sources=[images], views=1, middle=0, cut=list)


def _config_of_size(context: StageContext, size: int) -> Any:
    """The configuration of [data] with `image_size` changed.

    Raises:
        RobustokError: if it has no option `image_size`.
    """
    spec = context.spec("data")
    config = spec.config
    if "image_size" not in {option.name for option in attrs.fields(type(config))}:
        raise RobustokError(
            f'views = "ten_crop" needs enlarged images, but the data set {spec.name!r} has no option image_size',
            where=context.location(table="data"),
            hint='use views = "flip"',
        )
    return attrs.evolve(config, image_size=size)


def _enlarged(context: StageContext, size: int) -> Images:
    """The training images in another size."""
    return context.spec("data").factory(_config_of_size(context, size)).train
