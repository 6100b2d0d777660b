"""Stage `make_pairs`: latents from a generator that preserves a share sigma of real images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.cost import Cost, Work
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import unit_interval, workers_range
from robustok_core.runs.components import WEIGHTS_FILE, read_component
from robustok_core.runs.fingerprints import content_fingerprint, latent_fingerprint
from robustok_core.runs.precision import Precision
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws, derive_seed
from robustok_stages.checks import check_generator, check_image_size, check_main_trained, made_of
from robustok_stages.costs import (
    SAMPLING_NOTE,
    Asked,
    draws_for,
    encoding,
    flops_of,
    in_bf16,
    latent_batch,
    latent_bytes,
    parameters,
    sampling,
    tokenizer_of,
)
from robustok_toolkit.array_files import read_array
from robustok_toolkit.generating import check_fits
from robustok_toolkit.latent_arrays import array_name, to_array
from robustok_toolkit.latent_files import SplitShards, write_latents
from robustok_toolkit.pair_files import CONTROL, ROWS, PairsPromise, label_of
from robustok_toolkit.resumable_shards import Shard, cut, make_missing, shard_file, whole_batches, write_array
from robustok_training.batches import batches_of, class_balanced_order
from robustok_training.costs import MEASURED


@frozen(kw_only=True)
class MakePairsConfig:
    """Options of `make_pairs`."""

    sigma: list[float] = field(
        factory=lambda: [0.9],
        validator=[validators.min_len(1), validators.deep_iterable(unit_interval)],
        metadata={"doc": "shares of the real image to preserve; several values make a sweep"},
    )
    control: bool = field(
        default=True,
        metadata={"doc": "also make pairs for sigma = 1, to fine-tune the decoder without generated latents"},
    )
    another_round: bool = field(
        default=False,
        metadata={
            "doc": "make pairs of a tokenizer that is post-trained already, with other draws than the round before",
            "result": False,  # given the tokenizer, there is one choice
        },
    )
    num_pairs: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": "number of training images, class-balanced (the paper: 200,000); default: all"},
    )
    batch_size: int = field(
        default=64, validator=validators.ge(1), metadata={"doc": "images at once on each process", "result": False}
    )
    part_size: int = field(
        default=2048,
        validator=validators.ge(1),
        metadata={
            "doc": "pairs per shard, rounded up to whole batches; a killed run repeats at most this many per process",
            "result": False,
        },
    )
    workers: int = field(
        default=0, validator=workers_range, metadata={"doc": "processes that load images", "result": False}
    )

    def __attrs_post_init__(self) -> None:
        names = [label_of(sigma) for sigma in self.sigmas]
        if len(set(names)) < len(names):
            raise ValueError("two values of sigma agree to 6 digits, so their files would have the same name")

    @property
    def sigmas(self) -> list[float]:
        """All distinct sigmas, including the control's."""
        return list(dict.fromkeys([*([CONTROL] if self.control else []), *self.sigma]))


class MakePairs(Stage):
    """Makes the artifact "pairs" from training images of [data], with [post_trainer], "tokenizer" and "generator"."""

    Config = MakePairsConfig
    uses = ("data", "post_trainer")
    needs = ("tokenizer", "generator")
    makes = ("pairs",)

    def __init__(self, config: MakePairsConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """There are enough images, and the generator and the post-trainer fit the tokenizer."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        self._check_round(context, tokenizer)
        check_image_size(context, tokenizer)
        check_generator(context, context.promise("generator", GeneratorPromise), tokenizer)
        context.build("post_trainer").check(tokenizer.space)
        images = context.dataset().train
        if self.config.num_pairs is not None and self.config.num_pairs > len(images):
            what = f"{self.config.num_pairs} pairs need as many training images, but there are only {len(images)}"
            raise context.located(RobustokError(what, hint=f"at most {len(images)}"), "num_pairs")

    def _check_round(self, context: StageContext, tokenizer: TokenizerPromise) -> None:
        if not self.config.another_round:
            check_main_trained(context, tokenizer)
        elif tokenizer.post_trained is False:
            hint = "leave it out for the first round"
            error = RobustokError("this tokenizer is not post-trained, so this is its first round", hint=hint)
            raise context.located(error, "another_round")

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The number of pairs per sigma, and what they are made with."""
        tokenizer, generator = (
            context.promise("tokenizer", TokenizerPromise),
            context.promise("generator", GeneratorPromise),
        )
        promise = PairsPromise(
            sigmas=self.config.sigmas,
            num_rows=self.config.num_pairs or len(context.dataset().train),
            post_trainer=context.spec("post_trainer").table(),
            made_of=made_of(tokenizer, generator),
        )
        return {"pairs": promise}

    def cost(self, context: StageContext) -> Cost | None:
        """What the post-trainer does with a batch, measured, apart from the generator's samples, which are counted."""
        tokenizer = tokenizer_of(context)
        if tokenizer is None:
            return None
        post_trainer: PostTrainer = context.build("post_trainer")
        generator = context.promise("generator", GeneratorPromise).sketch()
        asked, real = Asked(generator), latent_batch(tokenizer.space, MEASURED)
        draws, sigma = draws_for(MEASURED, MEASURED), self.config.sigma[0]
        pairing = flops_of(lambda: post_trainer.pair(tokenizer, asked, real, draws=draws, sigma=sigma))
        precision: Precision = getattr(post_trainer.config, "precision", "no")  # type: ignore[attr-defined]
        samples = [sampling(generator, guidance, options, precision) for guidance, options in asked.asked]
        if None in samples:
            return None
        count = len(self.config.sigmas) * (self.config.num_pairs or len(context.dataset().train))
        size, bf16 = count * latent_bytes(tokenizer.space), in_bf16(context, precision)
        work = [
            Work(name="encoding and decoding", images=count, flops=encoding(tokenizer) + pairing),
            Work(name="sampling", images=count, flops=sum(filter(None, samples)), bf16=bf16),
        ]
        return Cost(
            frozen=parameters(tokenizer, generator),
            work=work,
            disk={"pairs": size, "shards until they are merged": size},
            notes=[SAMPLING_NOTE],
        )

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, float]:
        """Makes the missing shards and merges all shards."""
        tokenizer, generator = context.load("tokenizer"), context.load("generator")
        check_fits(generator, context.inputs["generator"], tokenizer)
        record = read_component(context.inputs["tokenizer"])
        if record.is_post_trained is None:
            source = record.imported_from
            context.say(
                f"{context.stage}: it is not recorded whether the tokenizer of {source} is post-trained already"
            )
        images = context.dataset().train
        rows = class_balanced_order(images.labels)[: self.config.num_pairs].sort().values
        weights = content_fingerprint(context.inputs["tokenizer"] / WEIGHTS_FILE)
        seed = derive_seed(context.seed, "pairs", *([weights] if self.config.another_round else []))
        splits = []
        for sigma in self.config.sigmas:
            splits.append(_Maker(context, self.config, tokenizer, generator, images, rows, sigma, seed).make())
        spec = context.spec("post_trainer")
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
                        "tokenizer_weights": weights,
                        "generator_weights": content_fingerprint(context.inputs["generator"] / WEIGHTS_FILE),
                    },
                )
                write_array(folder / ROWS, rows.numpy())
        context.discard_checkpoints()
        return {"num_pairs": float(len(rows)), **{f"changed_{s.name}": float(s.changed) for s in splits}}


@frozen(kw_only=True)
class _Pairs(SplitShards):
    """The shards of a sigma, and `changed`, the mean of `_changed` over its pairs."""

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
    seed: int

    def make(self) -> _Pairs:
        """Makes the missing shards; returns a description of all of them."""
        name, array = label_of(self.sigma), array_name(self.tokenizer.space)
        shards = cut(name, len(self.rows), whole_batches(self.config.part_size, self.config.batch_size))
        make_missing(self.context, shards, ["changed", array], self._make)
        changed = [read_array(shard_file(self.context.checkpoints, shard, "changed")) for shard in shards]
        return _Pairs(
            name=name,
            array=array,
            parts=shards,
            views=1,
            middle=0,
            labels=self.images.labels[self.rows],
            changed=float(np.concatenate(changed).mean()),
        )

    def _make(self, shards: Sequence[Shard], done: Callable[[int], None]) -> Iterator[dict[str, NDArray[Any]]]:
        post_trainer: PostTrainer = self.context.build("post_trainer")
        for shard in shards:
            arrays: dict[str, list[NDArray[Any]]] = {"changed": [], array_name(self.tokenizer.space): []}
            rows = self.rows[shard.first : shard.stop]
            batches = batches_of(self.images, rows, batch_size=self.config.batch_size, workers=self.config.workers)
            for loaded in batches:
                real, made = self._pair(post_trainer, loaded.to(self.context.device))
                arrays["changed"].append(_changed(real, made))
                arrays[array_name(self.tokenizer.space)].append(made[:, None])
                done(len(loaded))
            yield {name: np.concatenate(batches_of_array) for name, batches_of_array in arrays.items()}

    def _pair(self, post_trainer: PostTrainer, batch: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """The latents of real images, and the latents that the decoder will read, as arrays."""
        encoded = self.tokenizer.encode(batch.images)
        real = encoded.without_features()
        draws = Draws(seed=self.seed, indices=batch.indices, total=len(self.images))
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
    """(B,) the share of codes (B, N) that differ, or the distance of vectors (B, N, D) over the real vectors' norm."""
    if real.ndim == 2:
        return (real != made).mean(1, dtype=np.float32)
    distance, norm = (np.linalg.norm(array.reshape(len(array), -1), axis=1) for array in (made - real, real))
    return distance / np.maximum(norm, np.float32(1e-12))
