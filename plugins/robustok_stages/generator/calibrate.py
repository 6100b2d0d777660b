"""Stage `calibrate`: how a generator really errs, and whether a perturbation imitates it (ours, not the paper's).

Of codes: along held-out images, the generator samples each code after the true codes before it. The rank of what it
draws, among the neighbours of the true codeword, says how near its errors are. Their law is the option `shares` of the
perturbation `rank_law`.

Of vectors: the generator makes latents that keep a share sigma of held-out images'. The shape of the difference is
compared with that of independent noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
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
from robustok_toolkit.calibration import check_calibration, errors_of_generator, held_out_rows, wrong_option
from robustok_toolkit.generating import check_fits


def _shares_below_one(_: object, __: object, sigmas: tuple[float, ...]) -> None:
    if not sigmas or min(sigmas) < 0.0 or max(sigmas) >= 1.0:
        raise ValueError("must hold at least one number, and each must be at least 0 and below 1")


@frozen(kw_only=True)
class CalibrateConfig:
    """Options of `calibrate`."""

    scales: tuple[float, ...] = field(
        default=(1.0,),
        validator=[validators.min_len(1), validators.deep_iterable(validators.ge(0.0))],
        metadata={"doc": "guidance scales; 1 is no guidance; the results are those of the first"},
    )
    sigmas: tuple[float, ...] | None = field(
        default=None,
        validator=validators.optional(_shares_below_one),
        metadata={
            "doc": "of vectors: the shares of the images that are kept; left out: 0.9, 0.8, 0.6, 0.4; the results are "
            "those of the first"
        },
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
        for name, values in (("guidance scale", self.scales), ("sigma", self.sigmas or ())):
            if len(set(values)) < len(values):
                raise ValueError(f"a {name} is named twice")


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
        codebook_size = tokenizer.space.codebook_size
        if codebook_size is not None:
            try:
                check_calibration(generator.factory, codebook_size)
            except RobustokError as error:
                raise context.located(error) from error
        options = {name: getattr(self.config, name) for name in ("limit", "sigmas", "scales")}
        if wrong := wrong_option(generator.sketch(), **options):
            option, problem = wrong
            raise context.located(problem, option)

    def run(self, context: StageContext) -> Mapping[str, Result]:
        """One pass over the images for each guidance scale and, of vectors, each sigma."""
        tokenizer, generator = context.load("tokenizer"), context.load("generator")
        check_fits(generator, context.inputs["generator"], tokenizer)
        images = context.dataset().validation
        rows = held_out_rows(images, self.config.limit)
        measure = partial(
            errors_of_generator,
            tokenizer,
            generator,
            images,
            rows,
            sigmas=self.config.sigmas,
            seed=context.seed,
            sampling=self.config.sampling,
            precision=self.config.precision,
            batch_size=self.config.batch_size,
        )
        found = {f"{scale:g}": measure(guidance=Guidance(scale=scale)) for scale in self.config.scales}
        details = {"by_scale": {scale: errors.as_details() for scale, errors in found.items()}}
        first, *others = next(iter(found.values())).numbers().items()
        results = {first[0]: Result(first[1], num_images=len(rows), details=details)}
        return results | {name: Result(value, num_images=len(rows)) for name, value in others}
