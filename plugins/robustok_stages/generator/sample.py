"""Stage `sample`: a set of samples, decoded, as files that evaluators and people read."""

from __future__ import annotations

import shutil
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
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.components import COMPONENT_FILE, WEIGHTS_FILE
from robustok_core.runs.files import read_json, write_json, writing
from robustok_core.runs.fingerprints import content_fingerprint, latent_fingerprint
from robustok_core.runs.precision import Precision
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.spec import plain, sampler_options
from robustok_stages.checks import check_generator
from robustok_toolkit.generating import check_fits, class_numbers, decode_to_uint8, generate, labels_of
from robustok_toolkit.image_files import write_samples
from robustok_toolkit.latent_arrays import array_name, to_array
from robustok_toolkit.pictures import rows_by_class, save_png, save_rows
from robustok_toolkit.resumable_shards import Shard, cut, make_missing, shard_file
from robustok_toolkit.sample_files import INDEX, SamplesPromise


@frozen(kw_only=True)
class SampleConfig:
    """Options of `sample`."""

    num_samples: int = field(validator=validators.ge(1), metadata={"doc": "how many; 50000 is what papers report"})
    classes: list[Any] = field(
        factory=list,
        validator=validators.deep_iterable(validators.instance_of((int, str))),
        metadata={"doc": "numbers or names of classes, which take turns; default: all"},
    )
    guidance: Guidance = field(factory=Guidance, metadata={"doc": "table: classifier-free guidance"})
    sampling: Any = sampler_options(doc="table: options of the generator's sampler")
    precision: Precision = field(
        default="no", metadata={"doc": 'of the generator: "no" (float32), "bf16" or "auto"; the decoder has float32'}
    )
    batch_size: int = field(
        default=50, validator=validators.ge(1), metadata={"doc": "samples at once on each process", "result": False}
    )
    part_size: int = field(
        default=500,
        validator=validators.ge(1),
        metadata={"doc": "samples a part: what a killed run makes again at most", "result": False},
    )
    grid: int = field(
        default=8,
        validator=validators.ge(0),
        metadata={"doc": "columns of grid.png, whose rows are classes; 0 for none"},
    )
    png: bool = field(default=False, metadata={"doc": "also write every sample as png/NUMBER.png"})


@frozen(kw_only=True)
class _Work:
    """What a set of samples is made of and with."""

    generator: Generator
    tokenizer: Tokenizer
    class_names: Sequence[str]
    labels: Tensor
    parts: Sequence[Shard]


class Sample(Stage):
    """Samples the artifact "generator", decodes with the artifact "tokenizer" and leaves the artifact "samples".

    samples.npz is ADM's sample file; codes.npy (or vectors.npy) holds the latents, which another decoder can
    draw; grid.png shows some; samples.json says how they were made.
    """

    Config = SampleConfig
    needs = ("generator", "tokenizer")
    makes = ("samples",)

    def __init__(self, config: SampleConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The tokenizer decodes what the generator samples, and the classes are there."""
        generator = context.promise("generator", GeneratorPromise)
        check_generator(generator, context.promise("tokenizer", TokenizerPromise))
        self._classes(context, generator.class_names, len(generator.class_names))

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """How many samples there will be."""
        size = context.promise("tokenizer", TokenizerPromise).image_size
        return {"samples": SamplesPromise(num_samples=self.config.num_samples, image_size=size)}

    def run(self, context: StageContext) -> Mapping[str, float]:
        """Makes the parts that are missing and puts the whole together."""
        work = self._work(context)
        make_missing(
            context, work.parts, ["latents", "pixels"], lambda mine, done: self._make(context, work, mine, done)
        )
        with context.making("samples") as folder:
            if folder is not None:
                self._put_together(context, work, folder)
        if context.accelerator.is_main_process:
            shutil.rmtree(context.checkpoints, ignore_errors=True)
        return {"num_samples": float(self.config.num_samples)}

    def _work(self, context: StageContext) -> _Work:
        generator, tokenizer = context.load("generator"), context.load("tokenizer")
        check_fits(generator, context.inputs["generator"], tokenizer)
        names = read_json(context.inputs["generator"] / COMPONENT_FILE).get("class_names")
        names = names or [str(number) for number in range(generator.num_classes)]
        classes = self._classes(context, names, generator.num_classes)
        count = self.config.num_samples
        if count % len(classes):
            context.say(
                f"{context.stage}: {count} samples are no multiple of {len(classes)} classes: "
                f"the first {count % len(classes)} have one more"
            )
        return _Work(
            generator=generator,
            tokenizer=tokenizer,
            class_names=names,
            labels=labels_of(classes, torch.arange(count)),
            parts=cut("samples", count, self.config.part_size),
        )

    def _classes(self, context: StageContext, names: Sequence[str], num_classes: int) -> list[int]:
        try:
            return class_numbers(self.config.classes, names, num_classes)
        except RobustokError as error:
            raise context.located(error, "classes") from error

    def _make(
        self, context: StageContext, work: _Work, mine: Sequence[Shard], done: Callable[[int], None]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        for part in mine:
            rows = torch.arange(part.first, part.stop)
            drawn = generate(
                work.generator,
                work.labels[rows],
                Draws(seed=derive_seed(context.seed, "samples"), indices=rows, total=self.config.num_samples),
                guidance=self.config.guidance,
                sampling=self.config.sampling,
                batch_size=self.config.batch_size,
                precision=self.config.precision,
            )
            latents, pixels, where = [], [], f"stage {context.stage}"
            for some in drawn:
                latents.append(to_array(some, work.tokenizer.space, maker="generator", where=where))
                pictures = decode_to_uint8(work.tokenizer, some).cpu()
                pixels.append(rearrange(pictures, "b c h w -> b h w c").contiguous().numpy())
                done(len(pictures))
            yield {"latents": np.concatenate(latents), "pixels": np.concatenate(pixels)}

    def _put_together(self, context: StageContext, work: _Work, folder: Path) -> None:
        kept, config = context.checkpoints, self.config
        pictures = Pictures([np.load(shard_file(kept, part, "pixels"), mmap_mode="r") for part in work.parts])
        size = work.tokenizer.image_size
        write_samples(folder / "samples.npz", iter(pictures), work.labels, image_size=size)
        self._write_latents(folder / f"{array_name(work.tokenizer.space)}.npy", kept, work.parts)
        for number, picture in enumerate(pictures) if config.png else ():
            save_png(folder / "png" / f"{number:06d}.png", picture)
        if config.grid:
            save_rows(folder / "grid.png", rows_by_class(pictures, work.labels, work.class_names, config.grid))
        write_json(folder / INDEX, self._about(context, work))
        write_json(folder / COMPONENT_FILE, {"kind": "samples"})  # so that [load] takes the folder itself

    def _write_latents(self, file: Path, kept: Path, parts: Sequence[Shard]) -> None:
        arrays = [np.load(shard_file(kept, part, "latents"), mmap_mode="r") for part in parts]
        shape = (self.config.num_samples, *arrays[0].shape[1:])
        with writing(file):
            whole = np.lib.format.open_memmap(file, mode="w+", dtype=arrays[0].dtype, shape=shape)
            for part, array in zip(parts, arrays, strict=True):
                whole[part.first : part.stop] = array
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


class Pictures(Sequence[NDArray[np.uint8]]):
    """Pictures (H, W, 3) uint8 that lie in several arrays, all but the last of one length."""

    def __init__(self, arrays: Sequence[NDArray[np.uint8]]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return sum(map(len, self._arrays))

    def __getitem__(self, index: Any) -> Any:
        return self._arrays[index // len(self._arrays[0])][index % len(self._arrays[0])]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (picture for array in self._arrays for picture in array)
