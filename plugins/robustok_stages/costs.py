"""What stages compute for an image, measured on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import torch

from robustok_core.kinds.features import Features
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.loss import Loss
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.kinds.stage import StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.precision import Precision
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.values.batches import ImageBatch, LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_core.values.spec import Spec, all_specs
from robustok_core.values.wording import reason_of
from robustok_toolkit.latent_arrays import code_type
from robustok_training.costs import MEASURED, on_meta
from robustok_training.on_meta import META, measuring

#: Said of every stage that samples.
SAMPLING_NOTE = (
    "sampling is counted as one pass over all tokens, or as one step times the number of steps; a guided step twice"
)


def flops_of(compute: Callable[[], Any], *, bf16: bool = False) -> float:
    """Operations for an image, of a computation for `MEASURED` images on the meta device, without gradients."""
    with torch.no_grad(), measuring(bf16=bf16, memory=False) as meter:
        compute()
    return meter.measured.flops / MEASURED


def in_bf16(context: StageContext, precision: Precision | None = None) -> bool:
    """Whether a stage computes in bfloat16; None for the run's precision."""
    return context.accelerator.mixed_precision != "no" if precision is None else precision != "no"


def image_batch(count: int, size: int) -> ImageBatch:
    """Images on the meta device."""
    rows = torch.zeros(count, dtype=torch.int64, device=META)
    return ImageBatch(images=torch.zeros(count, 3, size, size, device=META), labels=rows, indices=rows)


def latent_batch(space: LatentSpace, count: int) -> LatentBatch:
    """Latents with labels on the meta device."""
    rows = torch.zeros(count, dtype=torch.int64, device=META)
    return LatentBatch(latents=latents_in(space, count), labels=rows, indices=rows)


def latents_in(space: LatentSpace, count: int) -> Latents:
    """Latents on the meta device: codes of a discrete space, else vectors."""
    if space.codebook_size is not None:
        return Latents(codes=torch.zeros(count, space.num_tokens, dtype=torch.int64, device=META))
    return Latents(vectors=torch.zeros(count, space.num_tokens, space.width, device=META))


def latent_bytes(space: LatentSpace, *, half: bool = False) -> int:
    """The bytes of an image's latents in a file."""
    if space.codebook_size is not None:
        return space.num_tokens * code_type(space.codebook_size).itemsize
    return space.num_tokens * space.width * (2 if half else 4)


def draws_for(count: int, total: int) -> Draws:
    """Draws on the meta device."""
    return Draws.for_part(0, range(count), max(count, total), META)


def tokenizer_of(context: StageContext) -> Tokenizer | None:
    """The tokenizer that a stage reads, on the meta device and in eval mode; None if its stage does not say how."""
    sketch = context.promise("tokenizer", TokenizerPromise).sketch
    return None if sketch is None else on_meta(sketch()).eval()


def encoding(tokenizer: Tokenizer, *, bf16: bool = False) -> float:
    """Operations of encoding an image."""
    images = image_batch(MEASURED, tokenizer.image_size).images
    return flops_of(lambda: tokenizer.encode(images), bf16=bf16)


def decoding(tokenizer: Tokenizer) -> float:
    """Operations of decoding an image."""
    vectors = torch.zeros(MEASURED, tokenizer.space.num_tokens, tokenizer.space.width, device=META)
    return flops_of(lambda: tokenizer.decode_vectors(vectors))


def sampling(generator: Generator, guidance: Guidance, options: Any, precision: Precision) -> float | None:
    """Operations of sampling the latents of an image; None if the number of steps is not known beforehand."""
    generator, bf16 = on_meta(generator).eval(), precision != "no"
    labels, draws = torch.zeros(MEASURED, dtype=torch.int64, device=META), draws_for(MEASURED, MEASURED)
    steps = getattr(options, "steps", None)
    if getattr(options, "method", None) == "dopri5":
        return None
    if steps is None:
        latents = latents_in(generator.space, MEASURED)
        once = flops_of(lambda: generator.loss(latents, labels, draws=draws, progress=1.0), bf16=bf16)
        return once * (1.0 + _guided(guidance, generator.space.num_tokens))

    def in_steps(number: int) -> float:
        few = attrs.evolve(options, steps=number)
        return flops_of(lambda: generator.sample(labels, draws, guidance=Guidance(), sampling=few), bf16=bf16)

    two, three = in_steps(2), in_steps(3)
    return (two + (steps - 2) * (three - two)) * (1.0 + _guided(guidance, steps))


def _guided(guidance: Guidance, steps: int) -> float:
    """The share of the steps that are guided."""
    return sum(guidance.weight(step / steps) != 1.0 for step in range(steps)) / steps


class Asked(Generator):
    """Stands in for a generator: returns latents at once, and counts what it was asked for."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.space, self.num_classes = generator.space, generator.num_classes
        self.knows_null_class = generator.knows_null_class
        self.place = torch.nn.Parameter(torch.empty(0, device=META))  # tells on which device it is
        self.asked: list[tuple[Guidance, Any]] = []

    def loss(self, latents: Latents, labels: torch.Tensor, *, draws: Draws, progress: float) -> Mapping[str, Any]:
        """It is not trained."""
        raise NotImplementedError

    def sample(
        self, labels: torch.Tensor, draws: Draws, *, guidance: Guidance, keep: Keep | None = None, sampling: Any = None
    ) -> Latents:
        """Latents without values."""
        self.asked.append((guidance, sampling))
        return latents_in(self.space, len(labels))


def changes_of(losses: Mapping[str, Spec]) -> list[float]:
    """The shares of a training at which terms of its loss start: their options called `start` or `..._start`."""
    tables = [attrs.asdict(spec.config, recurse=False) for spec in losses.values()]
    options = [option for table in tables for option in table.items()]
    return [value for name, value in options if name.endswith("start") and isinstance(value, float)]


def sketched_losses(specs: Mapping[str, Spec], tokenizer: Tokenizer) -> dict[str, Loss]:
    """Loss terms by name on the meta device, prepared for a tokenizer."""
    losses: dict[str, Loss] = {name: spec.sketch() for name, spec in specs.items()}
    with torch.device(META):
        for loss in losses.values():
            loss.prepare(tokenizer)
    return losses


class SketchedFeatures:
    """Builds each feature network once, on the meta device."""

    def __init__(self) -> None:
        self._built: dict[str, Features] = {}

    def __call__(self, spec: Spec) -> Features:
        """The network of a configuration."""
        key = repr(spec.table())
        if key not in self._built:
            self._built[key] = spec.sketch().to(META)
        return self._built[key]


def features(metrics: Iterable[Spec], size: int) -> float:
    """Operations for the features of an image of `size` pixels, of all networks that metrics use, each once."""
    specs = [spec for metric in metrics for spec in all_specs(metric.config) if spec.kind == "features"]
    images = image_batch(MEASURED, size).images
    networks = {repr(spec.table()): spec for spec in specs}
    return sum(flops_of(lambda spec=spec: spec.sketch().to(META)(images)) for spec in networks.values())  # type: ignore[misc]


def measuring_tokenizer(tokenizer: Tokenizer, metrics: Mapping[str, Spec]) -> tuple[float, list[str]]:
    """Operations for what metrics compute for an image besides encoding and decoding it once; those not counted."""
    batch, networks = image_batch(MEASURED, tokenizer.image_size), SketchedFeatures()
    shared = EvaluationContext(
        tokenizer=tokenizer, source="", num_images=2**16, cache=None, share_features=networks, device=META
    )
    latents, notes, total = _latents_with_vectors(tokenizer), list[str](), 0.0
    step = Evaluation(
        batch=batch,
        latents=latents,
        images=batch.images,
        tokenizer=tokenizer,
        draws=draws_for(MEASURED, 2**16),
    )
    for name, spec in metrics.items():
        try:
            with torch.device(META):
                metric: Metric = spec.build()
                metric.start(shared)
            total += flops_of(lambda metric=metric: metric.update(step))  # type: ignore[misc]
        except Exception as error:  # a metric may need values: those of any plugin
            notes.append(f"metric {name!r} is not counted: {reason_of(error)}")
    return total, notes


def _latents_with_vectors(tokenizer: Tokenizer) -> Latents:
    with torch.no_grad(), measuring():
        return tokenizer.encode(image_batch(MEASURED, tokenizer.image_size).images)


def parameters(*modules: torch.nn.Module) -> int:
    """The number of parameters of modules."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def weights_bytes(module: torch.nn.Module) -> int:
    """The bytes of a component's file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def picture_bytes(size: int) -> int:
    """The bytes of an 8-bit image."""
    return 3 * size * size
