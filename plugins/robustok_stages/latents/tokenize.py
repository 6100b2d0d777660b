"""Stage `tokenize`: the latents of a data set, made once, that generators are trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from attrs import field, frozen, validators
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.precision import Precision, autocast
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.values.spec import Spec
from robustok_stages.checks import check_image_size
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
            "doc": "of each training image: itself; with its mirror image; or the corners and the middle of a "
            "larger one, and mirrored, for each of crop_ranges. Validation images have one view"
        },
    )
    crop_ranges: list[float] = field(
        factory=lambda: [1.1],
        validator=[validators.min_len(1), validators.deep_iterable(validators.ge(1.0))],
        metadata={"doc": "sizes of the image that the ten crops are cut from, in units of the image size"},
    )
    dtype: VectorType = field(
        default="float32", metadata={"doc": "how vectors of a continuous space are stored; codes are exact integers"}
    )
    precision: Precision = field(default="no", metadata={"doc": 'of the encoder: "no" (float32), "bf16" or "auto"'})
    batch_size: int = field(default=64, validator=validators.ge(1), metadata={"doc": "images at once on each process"})
    part_size: int = field(
        default=4096,
        validator=validators.ge(1),
        metadata={"doc": "images a file, rounded up to whole batches; what a killed run makes again", "result": False},
    )
    workers: int = field(
        default=0, validator=validators.ge(0), metadata={"doc": "processes that load images", "result": False}
    )


@frozen(kw_only=True)
class _Split:
    """A split to be tokenized: where its images come from, and how a batch of them is cut into views.

    Attributes:
        name: "train" or "validation".
        sources: the same images in one or several sizes.
        views: of each image. middle: which of them shows the middle of the image.
        cut: the views (b, 3, S, S) of a batch of every source.
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
    """Encodes both splits of [data] with the artifact "tokenizer" and leaves the artifact "latents"."""

    Config = TokenizeConfig
    uses = ("data",)
    needs = ("tokenizer",)
    makes = ("latents",)

    def __init__(self, config: TokenizeConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """Sizes fit, and ten crops can be cut from this data set."""
        check_image_size(context, context.promise("tokenizer", TokenizerPromise))
        if self.config.views == "ten_crop":
            _config_of_size(context, context.dataset().image_size)

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The latents of the training images, in the tokenizer's space."""
        tokenizer, dataset = context.promise("tokenizer", TokenizerPromise), context.dataset()
        promise = LatentsPromise(space=tokenizer.space, class_names=dataset.class_names, num_rows=len(dataset.train))
        return {"latents": promise}

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, float]:
        """Makes what is missing and puts the whole together."""
        tokenizer: Tokenizer = context.load("tokenizer")
        splits = [self._training_split(context), _as_they_are("validation", context.dataset().validation)]
        kept = [self._keep(context, tokenizer, split) for split in splits]
        dataset, options = context.dataset(), attrs.asdict(self.config)
        with context.making("latents") as folder:
            if folder is not None:
                write_latents(
                    folder,
                    context.checkpoints,
                    kept,
                    space=tokenizer.space,
                    tokenizer=latent_fingerprint(tokenizer),
                    class_names=dataset.class_names,
                    data={split.name: split.sources[0].fingerprint for split in splits},
                    options={name: options[name] for name in ("views", "crop_ranges", "precision")},
                )
        if context.accelerator.is_main_process:
            shutil.rmtree(context.checkpoints, ignore_errors=True)
        return {"train_images": float(len(splits[0])), "views": float(splits[0].views)}

    def _training_split(self, context: StageContext) -> _Split:
        train, size = context.dataset().train, context.dataset().image_size
        if self.config.views == "center":
            return _as_they_are("train", train)
        if self.config.views == "flip":
            return _Split(name="train", sources=[train], views=2, middle=0, cut=lambda found: with_mirrored(found[0]))
        sources = [_enlarged(context, int(scale * size)) for scale in self.config.crop_ranges]
        return _Split(
            name="train",
            sources=sources,
            views=10 * len(sources),
            middle=MIDDLE_OF_TEN,
            cut=lambda found: all_ten_crops(found, size),
        )

    def _keep(self, context: StageContext, tokenizer: Tokenizer, split: _Split) -> SplitShards:
        """Makes the parts of a split that are missing and says what they are."""
        size = whole_batches(self.config.part_size, self.config.batch_size)
        parts = cut(split.name, len(split), size)
        name = array_name(tokenizer.space)

        def make(mine: Sequence[Shard], done: Callable[[int], None]) -> Iterator[dict[str, NDArray[Any]]]:
            batches = self._batches(context, split, mine)
            for part in mine:
                found: list[NDArray[Any]] = []
                while sum(map(len, found)) < len(part):
                    found.append(self._encode(context, tokenizer, split.cut(next(batches))))
                    done(len(found[-1]))
                yield {name: np.concatenate(found)}

        make_missing(context, parts, [name], make)
        return SplitShards(
            name=split.name, array=name, parts=parts, views=split.views, middle=split.middle, labels=split.labels
        )

    def _batches(self, context: StageContext, split: _Split, mine: Sequence[Shard]) -> Iterator[list[Tensor]]:
        """For each batch of the parts, the images of every source (b, 3, h, w)."""
        if not mine:
            return
        rows = torch.cat([torch.arange(part.first, part.stop) for part in mine])
        size, workers = self.config.batch_size, self.config.workers
        sources = [batches_of(source, rows, batch_size=size, workers=workers) for source in split.sources]
        for batches in zip(*sources, strict=True):
            yield [batch.images.to(context.device) for batch in batches]

    def _encode(self, context: StageContext, tokenizer: Tokenizer, views: Sequence[Tensor]) -> NDArray[Any]:
        """(b, views, N) codes, or (b, views, N, D) vectors, in the type in which they are kept."""
        found, where = [], f"stage {context.stage}"
        for images in views:
            with autocast(self.config.precision, context.device):
                latents = tokenizer.encode(images)
            found.append(to_array(latents, tokenizer.space, maker="encoder", where=where, dtype=self.config.dtype))
        return np.stack(found, 1)


def _as_they_are(name: str, images: Images) -> _Split:
    return _Split(name=name, sources=[images], views=1, middle=0, cut=list)


def _config_of_size(context: StageContext, size: int) -> Any:
    """The configuration of [data] for images of another size.

    Raises:
        RobustokError: it has no `image_size`.
    """
    spec = _data(context)
    config = spec.config
    if "image_size" not in {option.name for option in attrs.fields(type(config))}:
        raise RobustokError(
            f'views = "ten_crop" cuts larger images, and the data set {spec.name!r} has no option image_size',
            where=context.location(table="data"),
            hint='use views = "flip"',
        )
    return attrs.evolve(config, image_size=size)


def _enlarged(context: StageContext, size: int) -> Images:
    """The training images with another size."""
    return _data(context).factory(_config_of_size(context, size)).train


def _data(context: StageContext) -> Spec:
    spec = context.spec("data")
    assert spec is not None
    return spec
