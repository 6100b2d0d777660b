"""Stage `compare_decoders`: measures the effect of post-training and chooses a decoder.

The tokenizer before post-training and every decoder after it decode the same latents, so the differences are paired:
their error is much smaller than that of either distance. The decoder is chosen on one half of the held-out images;
the results are measured on the other half.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.cost import Cost, Work
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import unit_interval
from robustok_core.runs.components import WEIGHTS_FILE, load_component
from robustok_core.runs.fingerprints import content_fingerprint
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.guidance import Guidance
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, all_specs
from robustok_stages.checks import (
    check_each,
    check_generator,
    check_image_size,
    check_made_by,
    check_made_of,
    check_main_trained,
)
from robustok_stages.costs import (
    SAMPLING_NOTE,
    decoding,
    encoding,
    features,
    measuring_tokenizer,
    parameters,
    sampling,
    tokenizer_of,
    weights_bytes,
)
from robustok_stages.generator.sample_evaluation import check_metrics
from robustok_stages.post_training.comparison import Comparison, ComparisonConfig
from robustok_stages.tokenizer.tokenizer_evaluation import check_tokenizer_metrics
from robustok_toolkit.decoder_files import Decoders, DecodersPromise, copy_component
from robustok_toolkit.generating import check_fits
from robustok_training.batches import balanced_halves


@frozen(kw_only=True)
class CompareDecodersConfig(ComparisonConfig):
    """Options of `compare_decoders`."""

    keep: float | None = field(
        default=None,
        validator=validators.optional(unit_interval),
        metadata={"doc": "sigma of the decoder to keep; default: the best below 1, measured on the selection images"},
    )

    def __attrs_post_init__(self) -> None:
        if not self.metrics and self.keep is None:
            raise ValueError("metrics: the first metric chooses the sigma to keep, but there is none; or set keep")


class CompareDecoders(Stage):
    """Compares the artifact "tokenizer" with the artifact "decoders", and keeps the best decoder.

    Writes the artifacts "tokenizer" (post-trained) and "comparison" (samples.png and sigma.png).
    """

    Config = CompareDecodersConfig
    uses = ("data", "post_trainer")
    needs = ("tokenizer", "generator", "decoders")
    makes = ("tokenizer", "comparison")

    def __init__(self, config: CompareDecodersConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The decoders are of the tokenizer, the generator and [post_trainer], the metrics fit, and `keep` exists."""
        config, tokenizer = self.config, context.promise("tokenizer", TokenizerPromise)
        decoders = context.promise("decoders", DecodersPromise)
        check_main_trained(context, tokenizer, decoders.made_of)
        check_made_by(context, decoders.post_trainer, "decoders were trained", "train other decoders")
        check_image_size(context, tokenizer)
        generator = context.promise("generator", GeneratorPromise)
        check_generator(context, generator, tokenizer)
        held_out = min(map(len, balanced_halves(context.dataset().validation.labels)))
        check_metrics(context, config.metrics, config.num_samples, held_out, "metrics")
        for key in ("tokenizer_metrics", "pair_metrics"):
            check_tokenizer_metrics(context, tokenizer, getattr(config, key), key)
        pair_metrics = {name: partial(_check_on_pairs, metric) for name, metric in config.pair_metrics.items()}
        check_each(context, pair_metrics, "pair_metrics")
        for component in (tokenizer, generator):
            check_made_of(context, component, decoders.made_of, "decoders were not trained")
        sigmas = decoders.sigmas
        if config.keep is not None and config.keep not in sigmas:
            hint = f"sigmas: {', '.join(map(str, sigmas))}"
            raise context.located(RobustokError(f"there is no decoder for sigma = {config.keep:g}", hint=hint), "keep")

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The tokenizer, post-trained."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        opponents = context.promise("decoders", DecodersPromise).opponents
        # The latents stay the same.
        promise = attrs.evolve(
            tokenizer,
            post_trained=True,
            opponents=opponents,
            opponent_weights={},
            folder=None,
            decoder_stage=context.stage,
        )
        return {"tokenizer": promise}

    def cost(self, context: StageContext) -> Cost | None:
        """Unguided and guided samples, decoded by each decoder, their features, and the tokenizer's metrics."""
        tokenizer, config = tokenizer_of(context), self.config
        if tokenizer is None:
            return None
        generator = context.promise("generator", GeneratorPromise).sketch()
        sets = [Guidance(), config.guidance] if config.guidance.active else [Guidance()]
        samples = [sampling(generator, guidance, config.sampling, "no") for guidance in sets]
        if None in samples:
            return None
        decoders = 1 + len(context.promise("decoders", DecodersPromise).sigmas)
        count, validation = config.num_samples, len(context.dataset().validation)
        decoded, (measured, notes) = decoding(tokenizer), measuring_tokenizer(tokenizer, config.tokenizer_metrics)
        compared = features(config.metrics.values(), tokenizer.image_size)
        work = [
            Work(name="sampling", images=count, flops=sum(filter(None, samples))),
            Work(name="decoding samples", images=count * len(sets) * decoders, flops=decoded),
            Work(name="features", images=count * len(sets) * decoders + validation, flops=compared),
            Work(
                name="metrics of the tokenizer",
                images=validation * decoders,
                flops=encoding(tokenizer) + decoded + measured if config.tokenizer_metrics else 0.0,
            ),
        ]
        notes = [SAMPLING_NOTE, "pictures and pair_metrics are not counted", *notes]
        return Cost(
            frozen=parameters(tokenizer, generator),
            work=work,
            disk={"tokenizer": weights_bytes(tokenizer)},
            notes=notes,
        )

    def run(self, context: StageContext) -> Mapping[str, float | Result]:
        """Measures all decoders and keeps one."""
        decoders = Decoders.read(context.inputs["decoders"])
        for kind, recorded in decoders.made_of.items():  # that of an imported component was not known before
            if recorded != content_fingerprint(context.inputs[kind] / WEIGHTS_FILE):
                what = f"these decoders were not trained with the {kind} in {context.inputs[kind]}"
                raise RobustokError(what, where=str(context.inputs["decoders"]))
        before: Tokenizer = context.load("tokenizer")
        check_fits(context.load("generator"), context.inputs["generator"], before)
        after: dict[float, Any] = {
            sigma: load_component(context.registry, folder).to(context.device)
            for sigma, folder in decoders.folders.items()
        }
        comparison = Comparison(context, self.config, before, after, seed=decoders.seed)
        results = comparison.results()
        kept = comparison.best() if self.config.keep is None else self.config.keep
        for other in comparison.better_than(kept):
            message = f"on the selection images {other} is better than sigma = {kept:g}, which is kept"
            context.say(f"{context.stage}: {message}")
        with context.making("comparison") as folder:
            if folder is not None:
                comparison.save_pictures(folder)
        with context.making("tokenizer") as folder:
            if folder is not None:
                copy_component(decoders.folders[kept], folder)
        return {**results, "kept_sigma": kept}


def _check_on_pairs(metric: Spec) -> None:
    """Raises RobustokError if a metric perturbs latents by what pairs do not have."""
    for spec in all_specs(metric.config):
        if spec.kind == "perturbation" and spec.build().needs_features:
            what = f"{spec.name} needs the encoder's vectors before the quantizer, which pairs do not have"
            raise RobustokError(what, hint='use neighbours = "codeword", or measure it in tokenizer_metrics')
