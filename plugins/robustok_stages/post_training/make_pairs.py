"""Stage `make_pairs`: what a generator makes of real images while it preserves a share sigma of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.components import WEIGHTS_FILE
from robustok_core.runs.fingerprints import content_fingerprint, latent_fingerprint
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.latents import Latents
from robustok_stages.checks import check_generator, check_image_size, check_main_trained
from robustok_toolkit.generating import check_fits
from robustok_toolkit.latent_arrays import array_name, to_array
from robustok_toolkit.latent_files import SplitShards, write_latents
from robustok_toolkit.pair_files import ROWS, PairsPromise, split_of
from robustok_toolkit.resumable_shards import Shard, cut, make_missing, whole_batches, write_array
from robustok_training.batches import batches_of, class_balanced_order

_share = validators.and_(validators.ge(0.0), validators.le(1.0))


@frozen(kw_only=True)
class MakePairsConfig:
    """Options of `make_pairs`."""

    sigma: list[float] = field(
        factory=lambda: [0.9],
        validator=[validators.min_len(1), validators.deep_iterable(_share)],
        metadata={"doc": "shares of the real image that are preserved; several make a sweep"},
    )
    control: bool = field(
        default=True,
        metadata={"doc": "also pairs of sigma = 1: the decoder's fine-tuning without anything generated in it"},
    )
    num_pairs: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": "of so many training images, class-balanced (the paper: 200,000); of all where left out"},
    )
    batch_size: int = field(
        default=64, validator=validators.ge(1), metadata={"doc": "images at once on each process", "result": False}
    )
    part_size: int = field(
        default=2048,
        validator=validators.ge(1),
        metadata={"doc": "pairs a file, rounded up to whole batches; what a killed run makes again", "result": False},
    )
    workers: int = field(
        default=0, validator=validators.ge(0), metadata={"doc": "processes that load images", "result": False}
    )

    def __attrs_post_init__(self) -> None:
        names = [split_of(sigma) for sigma in self.sigmas]
        if len(set(names)) < len(names):
            raise ValueError("two values of sigma differ by less than the 6 digits that tell their pairs apart")

    @property
    def sigmas(self) -> list[float]:
        """All sigmas, each once, the control's among them."""
        return list(dict.fromkeys([*([1.0] if self.control else []), *self.sigma]))


class MakePairs(Stage):
    """Pairs of the training images of [data], made by [post_trainer] with the artifacts "tokenizer" and "generator"."""

    Config = MakePairsConfig
    uses = ("data", "post_trainer")
    needs = ("tokenizer", "generator")
    makes = ("pairs",)

    def __init__(self, config: MakePairsConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """So many images are there, and the generator fits the tokenizer."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        check_main_trained(tokenizer)
        check_image_size(context, tokenizer)
        check_generator(context.promise("generator", GeneratorPromise), tokenizer)
        images = context.dataset().train
        if self.config.num_pairs is not None and self.config.num_pairs > len(images):
            what = f"{self.config.num_pairs} pairs of {len(images)} training images: each gives one pair a sigma"
            raise context.located(RobustokError(what, hint=f"at most {len(images)}"), "num_pairs")

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """How many pairs there will be of each sigma."""
        spec = context.spec("post_trainer")
        assert spec is not None
        num_rows = self.config.num_pairs or len(context.dataset().train)
        return {"pairs": PairsPromise(sigmas=self.config.sigmas, num_rows=num_rows, post_trainer=spec.table())}

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, float]:
        """Makes the parts that are missing and puts the whole together."""
        tokenizer, generator = context.load("tokenizer"), context.load("generator")
        check_fits(generator, context.inputs["generator"], tokenizer)
        images = context.dataset().train
        rows = class_balanced_order(images.labels)[: self.config.num_pairs].sort().values
        splits = []
        for sigma in self.config.sigmas:
            splits.append(_Maker(context, self.config, tokenizer, generator, images, rows, sigma).keep())
        spec = context.spec("post_trainer")
        assert spec is not None
        with context.making("pairs") as folder:
            if folder is not None:
                write_latents(
                    folder,
                    context.checkpoints,
                    splits,
                    kind="pairs",
                    space=tokenizer.space,
                    tokenizer=latent_fingerprint(tokenizer),
                    class_names=context.dataset().class_names,
                    data={"train": images.fingerprint},
                    options={
                        "sigma": self.config.sigmas,
                        "seed": context.run_seed,
                        "post_trainer": spec.table(),
                        "tokenizer_weights": content_fingerprint(context.inputs["tokenizer"] / WEIGHTS_FILE),
                        "generator_weights": content_fingerprint(context.inputs["generator"] / WEIGHTS_FILE),
                    },
                )
                write_array(folder / ROWS, rows.numpy())
        if context.accelerator.is_main_process:
            shutil.rmtree(context.checkpoints, ignore_errors=True)
        return {"num_pairs": float(len(rows)), **{f"changed_{s.name}": float(s.changed) for s in splits}}


@frozen(kw_only=True)
class _Pairs(SplitShards):
    """The parts of a sigma, and `changed`: the share of tokens that differ from the real image's."""

    changed: float


@frozen
class _Maker:
    """Makes the pairs of one sigma."""

    context: StageContext
    config: MakePairsConfig
    tokenizer: Tokenizer
    generator: Generator
    images: Images
    rows: Tensor
    sigma: float

    def keep(self) -> _Pairs:
        """Makes the parts that are missing and says what they are."""
        name, array = split_of(self.sigma), array_name(self.tokenizer.space)
        parts = cut(name, len(self.rows), whole_batches(self.config.part_size, self.config.batch_size))
        make_missing(self.context, parts, ["changed", array], self._make)
        changed = [np.load(self.context.checkpoints / f"{part.stem}.changed.npy") for part in parts]
        return _Pairs(
            name=name,
            array=array,
            parts=parts,
            views=1,
            middle=0,
            labels=self.images.labels[self.rows],
            changed=float(np.concatenate(changed).mean()),
        )

    def _make(self, mine: Sequence[Shard], done: Callable[[int], None]) -> Iterator[dict[str, NDArray[Any]]]:
        post_trainer: PostTrainer = self.context.build("post_trainer")
        for part in mine:
            arrays: dict[str, list[NDArray[Any]]] = {"changed": [], array_name(self.tokenizer.space): []}
            rows = self.rows[part.first : part.stop]
            batches = batches_of(self.images, rows, batch_size=self.config.batch_size, workers=self.config.workers)
            for loaded in batches:
                real, made = self._pair(post_trainer, loaded.to(self.context.device))
                arrays["changed"].append(_changed(real, made))
                arrays[array_name(self.tokenizer.space)].append(made[:, None])
                done(len(loaded))
            yield {name: np.concatenate(found) for name, found in arrays.items()}

    def _pair(self, post_trainer: PostTrainer, batch: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """The latents of real images, and those that the decoder will read, as arrays."""
        encoded = self.tokenizer.encode(batch.images)
        real = Latents(codes=encoded.codes) if encoded.codes is not None else Latents(vectors=encoded.vectors)
        draws = Draws(seed=derive_seed(self.context.seed, "pairs"), indices=batch.indices, total=len(self.images))
        made = post_trainer.pair(
            self.tokenizer,
            self.generator,
            LatentBatch(latents=real, labels=batch.labels, indices=batch.indices),
            draws=draws,
            sigma=self.sigma,
        )
        space, where = self.tokenizer.space, f"stage {self.context.stage}"
        before = to_array(real, space, maker="encoder", where=where)
        return before, to_array(made, space, maker="generator", where=where)


def _changed(real: NDArray[Any], made: NDArray[Any]) -> NDArray[np.float32]:
    """(B,) the share of an image's codes (B, N) that differ; of vectors (B, N, D), the distance over the real norm."""
    if real.ndim == 2:
        return (real != made).mean(1, dtype=np.float32)
    apart, length = (np.linalg.norm(one.reshape(len(one), -1), axis=1) for one in (made - real, real))
    return apart / np.maximum(length, np.float32(1e-12))
