"""Stage `sample`: generates and decodes samples, and saves them as files for evaluators and people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.cost import Cost, Work
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.components import COMPONENT_FILE, WEIGHTS_FILE, read_component
from robustok_core.runs.files import write_json, writing
from robustok_core.runs.fingerprints import content_fingerprint, latent_fingerprint
from robustok_core.runs.precision import Precision
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.spec import plain, sampler_options
from robustok_stages.checks import check_generator
from robustok_stages.costs import (
    SAMPLING_NOTE,
    decoding,
    in_bf16,
    latent_bytes,
    parameters,
    picture_bytes,
    sampling,
    tokenizer_of,
)
from robustok_toolkit.array_files import read_array
from robustok_toolkit.generating import check_fits, class_numbers, decode_to_uint8, generate, labels_of
from robustok_toolkit.image_files import write_samples
from robustok_toolkit.latent_arrays import array_name, to_array
from robustok_toolkit.pictures import rows_by_class, save_png, save_rows
from robustok_toolkit.resumable_shards import Shard, cut, make_missing, shard_file
from robustok_toolkit.sample_files import INDEX, SamplesPromise


@frozen(kw_only=True)
class SampleConfig:
    """Options of `sample`."""

    num_samples: int = field(validator=validators.ge(1), metadata={"doc": "number of samples; papers report 50000"})
    classes: list[Any] = field(
        factory=list,
        validator=validators.deep_iterable(validators.instance_of((int, str))),
        metadata={"doc": "numbers or names of classes, sampled in turn; default: all"},
    )
    guidance: Guidance = field(factory=Guidance, metadata={"doc": "table: classifier-free guidance"})
    sampling: Any = sampler_options(doc="table: options of the generator's sampler")
    precision: Precision = field(
        default="no",
        metadata={"doc": 'the generator\'s precision: "no" (float32), "bf16" or "auto"; the decoder uses float32'},
    )
    batch_size: int = field(
        default=50, validator=validators.ge(1), metadata={"doc": "samples at once on each process", "result": False}
    )
    part_size: int = field(
        default=500,
        validator=validators.ge(1),
        metadata={"doc": "samples per shard; a killed run repeats at most this many per process", "result": False},
    )
    grid: int = field(
        default=8,
        validator=validators.ge(0),
        metadata={"doc": "columns of grid.png, which has one row per class; 0 for no grid"},
    )
    png: bool = field(default=False, metadata={"doc": "also write every sample as png/NUMBER.png"})


@frozen(kw_only=True)
class _Work:
    """What is needed to make a set of samples."""

    generator: Generator
    tokenizer: Tokenizer
    class_names: Sequence[str]
    labels: Tensor
    shards: Sequence[Shard]


class Sample(Stage):
    """Samples the artifact "generator", decodes with the artifact "tokenizer" and writes the artifact "samples".

    samples.npz is a sample file in ADM's format; codes.npy (or vectors.npy) holds the latents, which another decoder
    can decode; grid.png shows some samples; samples.json records how they were made.
    """

    Config = SampleConfig
    needs = ("generator", "tokenizer")
    makes = ("samples",)

    def __init__(self, config: SampleConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The tokenizer fits the generator, and the classes exist."""
        generator = context.promise("generator", GeneratorPromise)
        check_generator(context, generator, context.promise("tokenizer", TokenizerPromise))
        self._classes(context, generator.class_names, len(generator.class_names))

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The number and size of the samples."""
        size = context.promise("tokenizer", TokenizerPromise).image_size
        return {"samples": SamplesPromise(num_samples=self.config.num_samples, image_size=size)}

    def cost(self, context: StageContext) -> Cost | None:
        """Sampling and decoding; the samples, and their shards until they are merged."""
        tokenizer, config = tokenizer_of(context), self.config
        if tokenizer is None:
            return None
        generator = context.promise("generator", GeneratorPromise).sketch()
        flops = sampling(generator, config.guidance, config.sampling, config.precision)
        if flops is None:
            return None
        count, bf16 = config.num_samples, in_bf16(context, config.precision)
        size = count * (picture_bytes(tokenizer.image_size) + latent_bytes(tokenizer.space))
        return Cost(
            frozen=parameters(tokenizer, generator),
            work=[
                Work(name="sampling", images=count, flops=flops, bf16=bf16),
                Work(name="decoding", images=count, flops=decoding(tokenizer)),
            ],
            disk={"samples": size, "shards until they are merged": size},
            notes=[SAMPLING_NOTE],
        )

    def result_names(self) -> Sequence[str]:
        return ["num_samples"]

    def run(self, context: StageContext) -> Mapping[str, float]:
        """Makes the missing shards and merges all shards."""
        work = self._work(context)
        make_missing(
            context, work.shards, ["latents", "pixels"], lambda shards, done: self._make(context, work, shards, done)
        )
        with context.making("samples") as folder:
            if folder is not None:
                self._put_together(context, work, folder)
        context.discard_checkpoints()
        return {"num_samples": float(self.config.num_samples)}

    def _work(self, context: StageContext) -> _Work:
        generator, tokenizer = context.load("generator"), context.load("tokenizer")
        check_fits(generator, context.inputs["generator"], tokenizer)
        names = read_component(context.inputs["generator"]).classes
        classes = self._classes(context, names, generator.num_classes)
        count = self.config.num_samples
        if count % len(classes):
            context.say(
                f"{context.stage}: {count} is not a multiple of the number of classes ({len(classes)}): "
                f"the first {count % len(classes)} classes get one more sample"
            )
        return _Work(
            generator=generator,
            tokenizer=tokenizer,
            class_names=names,
            labels=labels_of(classes, torch.arange(count)),
            shards=cut("samples", count, self.config.part_size),
        )

    def _classes(self, context: StageContext, names: Sequence[str], num_classes: int) -> list[int]:
        try:
            return class_numbers(self.config.classes, names, num_classes)
        except RobustokError as error:
            raise context.located(error, "classes") from error

    def _make(
        self, context: StageContext, work: _Work, shards: Sequence[Shard], done: Callable[[int], None]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        for shard in shards:
            rows = torch.arange(shard.first, shard.stop)
            batches = generate(
                work.generator,
                work.labels[rows],
                Draws(seed=derive_seed(context.seed, "samples"), indices=rows, total=self.config.num_samples),
                guidance=self.config.guidance,
                sampling=self.config.sampling,
                batch_size=self.config.batch_size,
                precision=self.config.precision,
            )
            latents, pixels, where = [], [], f"stage {context.stage}"
            for batch in batches:
                latents.append(to_array(batch, work.tokenizer.space, maker="generator", where=where))
                images = decode_to_uint8(work.tokenizer, batch).cpu()
                pixels.append(rearrange(images, "b c h w -> b h w c").contiguous().numpy())
                done(len(images))
            yield {"latents": np.concatenate(latents), "pixels": np.concatenate(pixels)}

    def _put_together(self, context: StageContext, work: _Work, folder: Path) -> None:
        checkpoints, config = context.checkpoints, self.config
        images = ShardedImages(
            [read_array(shard_file(checkpoints, shard, "pixels"), mapped=True) for shard in work.shards]
        )
        size = work.tokenizer.image_size
        write_samples(folder / "samples.npz", iter(images), work.labels, image_size=size)
        self._write_latents(folder / f"{array_name(work.tokenizer.space)}.npy", checkpoints, work.shards)
        for number, image in enumerate(images) if config.png else ():
            save_png(folder / "png" / f"{number:06d}.png", image)
        if config.grid:
            save_rows(folder / "grid.png", rows_by_class(images, work.labels, work.class_names, config.grid))
        write_json(folder / INDEX, self._about(context, work))
        write_json(folder / COMPONENT_FILE, {"kind": "samples"})  # so that [load] accepts this folder

    def _write_latents(self, file: Path, checkpoints: Path, shards: Sequence[Shard]) -> None:
        arrays = [read_array(shard_file(checkpoints, shard, "latents"), mapped=True) for shard in shards]
        shape = (self.config.num_samples, *arrays[0].shape[1:])
        with writing(file):
            whole = np.lib.format.open_memmap(file, mode="w+", dtype=arrays[0].dtype, shape=shape)
            for shard, array in zip(shards, arrays, strict=True):
                whole[shard.first : shard.stop] = array
            whole.flush()

    def _about(self, context: StageContext, work: _Work) -> dict[str, Any]:
        return {
            **plain(self.config),
            "seed": context.seed,
            "generator": content_fingerprint(context.inputs["generator"] / WEIGHTS_FILE),
            "tokenizer": content_fingerprint(context.inputs["tokenizer"] / WEIGHTS_FILE),
            "latents_of": latent_fingerprint(work.tokenizer),
            "class_names": list(work.class_names),
            "image_size": work.tokenizer.image_size,
        }


class ShardedImages(Sequence[NDArray[np.uint8]]):
    """Images (H, W, 3) uint8 stored in several arrays, all but the last of equal length."""

    def __init__(self, arrays: Sequence[NDArray[np.uint8]]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return sum(map(len, self._arrays))

    def __getitem__(self, index: Any) -> Any:
        return self._arrays[index // len(self._arrays[0])][index % len(self._arrays[0])]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (image for array in self._arrays for image in array)
