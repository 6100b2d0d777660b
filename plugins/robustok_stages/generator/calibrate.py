"""Stage `calibrate`: how a generator really errs, and where the paper's uniform delta lies (ours, not the paper's).

Along held-out images, the generator samples each code after the true codes before it. The rank of what it draws,
among the neighbours of the true codeword, says how near its errors are. Their law is the option `shares` of the
perturbation `rank_law`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.runs.precision import Precision
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.guidance import Guidance
from robustok_core.values.result import Result
from robustok_core.values.spec import sampler_options
from robustok_stages.checks import check_generator, check_image_size
from robustok_toolkit.calibration import check_calibration, errors_of, forced_ranks, held_out_rows
from robustok_toolkit.generating import check_fits


@frozen(kw_only=True)
class CalibrateConfig:
    """Options of `calibrate`."""

    scales: tuple[float, ...] = field(
        default=(1.0,),
        validator=[validators.min_len(1), validators.deep_iterable(validators.ge(0.0))],
        metadata={"doc": "guidance scales; 1 is no guidance; the results are those of the first"},
    )
    limit: int = field(default=1000, validator=validators.ge(1), metadata={"doc": "largest number of held-out images"})
    sampling: Any = sampler_options(doc="table: options of the generator's sampler")
    precision: Precision = field(
        default="no", metadata={"doc": 'the generator\'s precision: "no" (float32), "bf16" or "auto"'}
    )
    batch_size: int = field(
        default=50, validator=validators.ge(1), metadata={"doc": "images at once on each process", "result": False}
    )

    def __attrs_post_init__(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError("a guidance scale is named twice")


class Calibrate(Stage):
    """Measures the errors of the artifact "generator" along held-out images of [data]."""

    Config = CalibrateConfig
    uses = ("data",)
    needs = ("tokenizer", "generator")

    def __init__(self, config: CalibrateConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The generator fits the tokenizer, which fits the images, and its codes can be ranked."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        generator = context.promise("generator", GeneratorPromise)
        check_image_size(context, tokenizer)
        check_generator(context, generator, tokenizer)
        try:
            check_calibration(generator.factory, tokenizer.space.codebook_size)
        except RobustokError as error:
            raise context.located(error) from error
        for scale in self.config.scales:
            try:
                generator.sketch().check_guidance(Guidance(scale=scale))
            except RobustokError as error:
                raise context.located(error, "scales") from error

    def run(self, context: StageContext) -> Mapping[str, Result]:
        """One pass over the images for each guidance scale."""
        tokenizer, generator = context.load("tokenizer"), context.load("generator")
        check_fits(generator, context.inputs["generator"], tokenizer)
        images = context.dataset().validation
        rows = held_out_rows(images, self.config.limit)
        found = {}
        for scale in self.config.scales:
            ranks = forced_ranks(
                tokenizer,
                generator,
                images,
                rows,
                seed=context.seed,
                guidance=Guidance(scale=scale),
                sampling=self.config.sampling,
                precision=self.config.precision,
                batch_size=self.config.batch_size,
            )
            found[f"{scale:g}"] = errors_of(ranks, tokenizer.space.codebook_size)
        details = {"by_scale": {scale: errors.as_details() for scale, errors in found.items()}}
        first = next(iter(found.values()))
        return {
            "changed": Result(first.changed, num_images=len(rows), details=details),
            "relative_rank": Result(first.relative_rank, num_images=len(rows)),
            "within_delta": Result(first.within_delta, num_images=len(rows)),
        }
