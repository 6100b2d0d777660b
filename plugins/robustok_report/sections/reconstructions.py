"""Held-out images, their reconstructions, and those from latents that are perturbed more and more.

The report decodes these itself rather than showing a picture of `evaluate_tokenizer`: it does so for the tokenizer that
the run ended with, and for old runs, too. The cost is bounded: a few images, at ten strengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robustok_core.values.images import to_uint8
from robustok_core.values.latents import Latents
from robustok_report.embedding import error_map
from robustok_report.made_sections import made_parts
from robustok_toolkit.report_parts import Part, Pictures, Pixels, Section, Text
from robustok_toolkit.reported_run import ReportedRun
from robustok_toolkit.trained_tokenizer import TrainedTokenizer
from robustok_training.batches import class_balanced_order

#: Images that are shown, of as many classes; fewer where decoding takes long.
_IMAGES, _LARGE_IMAGES, _LARGE = 10, 6, 128
#: Mean error of the channels, in levels of 255, that an error map shows in its brightest colour.
_BRIGHTEST = 96
_ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)
#: Deltas as shares of the codebook: from a third of pFID's middle one up to half of it.
_DELTA_SHARES = (0.006, 0.017, 0.05, 0.15, 0.5)
_MIDDLE_DELTA, _MIDDLE_ALPHA = 0.017, 0.7
_LEVELS, _MIDDLE_LEVEL = (0.25, 0.5, 0.75, 1.0, 1.5), 0.5


def reconstructions(run: ReportedRun) -> Section:
    """Inputs, reconstructions, error maps, and reconstructions from perturbed latents."""
    tokenizer = run.tokenizer
    chosen, images = some_images(run)
    labels = run.data.validation.labels[chosen].tolist()
    names = [run.data.class_names[label] for label in labels]
    latents = tokenizer.encode_images(images)
    inputs, decoded = as_pixels(to_uint8(images)), _decoded(tokenizer, latents)
    errors = [error_map(one, other, _BRIGHTEST) for one, other in zip(inputs, decoded, strict=True)]
    rows = {"input": inputs, "reconstruction": decoded, "error": errors}
    plain = Pictures(_title(labels, run.data.num_classes), rows, names)
    legend = (
        f"Error maps are black where a pixel is exact, and pale yellow from an error of {_BRIGHTEST} of 255 levels on."
    )
    perturbed = made_parts(
        partial(_perturbed, tokenizer, latents), "the reconstructions from perturbed latents", run.missing
    )
    parts: list[Part] = [plain, Text(legend, muted=True), *perturbed]
    why = "A robust tokenizer still draws the same object when many of its tokens are slightly wrong."
    return Section("Reconstructions", parts, why=why)


def _title(labels: list[int], num_classes: int) -> str:
    shown = len(set(labels))
    if shown == len(labels) == num_classes:
        return "One held-out image of each class"
    return f"{len(labels)} held-out images, of {shown} of the {num_classes:,} classes"


def some_images(run: ReportedRun) -> tuple[list[int], Tensor]:
    """A few held-out images, one of each class as far as possible: their indices, and (B, 3, H, W) in [-1, 1]."""
    count = _IMAGES if run.data.image_size <= _LARGE else _LARGE_IMAGES
    chosen = sorted(
        class_balanced_order(run.data.validation.labels)[:count].tolist(),
        key=lambda index: int(run.data.validation.labels[index]),
    )
    return chosen, run.data.validation.load(chosen).images


def as_pixels(images: Tensor) -> list[Pixels]:
    """Pictures (H, W, 3) of a tensor (B, 3, H, W) uint8."""
    return list(images.cpu().permute(0, 2, 3, 1).contiguous().numpy())


def _decoded(tokenizer: TrainedTokenizer, latents: Latents) -> list[Pixels]:
    return [picture for batch in tokenizer.decoded(latents) for picture in as_pixels(batch)]


def _perturbed(tokenizer: TrainedTokenizer, latents: Latents) -> list[Pictures]:
    return [
        Pictures(
            title,
            {
                label: _decoded(tokenizer, tokenizer.perturbed(latents, use, **options))
                for label, options in strengths.items()
            },
        )
        for title, (use, strengths) in _strengths(tokenizer).items()
    ]


def _strengths(tokenizer: TrainedTokenizer) -> dict[str, tuple[str, Mapping[str, Mapping[str, Any]]]]:
    """By title: a perturbation, and its options by caption."""
    size = tokenizer.tokenizer.space.codebook_size
    if size is None:
        fixed = {"scale": "relative", "strength": "fixed"}
        noise = {f"τ = {tau:g}": {**fixed, "tau": tau, "alpha": 1.0} for tau in _LEVELS}
        share = {f"α = {alpha:g}": {**fixed, "tau": _MIDDLE_LEVEL, "alpha": alpha} for alpha in _ALPHAS}
        return {
            "Noise on all tokens, of rising strength τ": ("gaussian", noise),
            f"Noise of τ = {_MIDDLE_LEVEL:g} on a rising share α of the tokens": ("gaussian", share),
        }
    deltas = list(dict.fromkeys(min(size, max(2, round(share * size))) for share in _DELTA_SHARES))
    middle = max(2, round(_MIDDLE_DELTA * size))
    far = {f"δ = {delta}": {"alpha": _MIDDLE_ALPHA, "delta": delta} for delta in deltas}
    more = {f"α = {alpha:g}": {"alpha": alpha, "delta": middle} for alpha in _ALPHAS}
    return {
        f"{_MIDDLE_ALPHA * 100:.0f} % of the tokens replaced by one of the δ nearest codes": ("top_delta", far),
        f"A rising share α of the tokens replaced by one of the {middle} nearest codes": ("top_delta", more),
    }


def spread_rows(count: int, total: int) -> list[int]:
    """`count` rows of `total`, evenly spread."""
    return torch.linspace(0, total - 1, min(count, total)).round().to(torch.int64).unique().tolist()
