"""Stage `latent_mmd`: which strength of perturbation comes closest to what a generator samples (the paper's figure 6).

The squared maximum mean discrepancy (MMD) between the latents of samples and the latents of held-out images, of whose
tokens a share alpha is perturbed, for several alphas. The kernel is the mean of five Gaussians, whose squared widths
are fractions and multiples of the median squared distance between samples and unperturbed latents; the estimate is the
unbiased one of Gretton et al. (JMLR 2012), which may fall below 0 where the two can't be told apart.

Samples often have every class equally often, and images do not. So the samples are taken in the proportion of the
images' classes; otherwise the distance would have a part that no perturbation can change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.promises import TokenizerPromise
from robustok_core.runs.records import read_record
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.result import Result
from robustok_stages.checks import check_image_size, check_of_space
from robustok_toolkit.array_files import read_array
from robustok_toolkit.image_files import NpzImages
from robustok_toolkit.latent_arrays import array_name, from_array
from robustok_toolkit.latent_files import check_latents_of
from robustok_toolkit.sample_files import INDEX, SamplesIndex
from robustok_training.batches import class_balanced_order, number_in_class

#: Squared widths of the kernel's Gaussians, in medians of the squared distances.
_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
#: The middle delta of pFID's grid, as a share of the codebook.
_MIDDLE_DELTA = 0.017


@frozen(kw_only=True)
class LatentMMDConfig:
    """Options of `latent_mmd`."""

    alphas: tuple[float, ...] = field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        validator=[
            validators.min_len(1),
            validators.deep_iterable(validators.and_(validators.ge(0.0), validators.le(1.0))),
        ],
        metadata={"doc": "shares of an image's tokens that are perturbed"},
    )
    delta: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2)),
        metadata={"doc": "of codes: how many nearest ones may replace one; default: pFID's middle one, 0.017 K"},
    )
    tau: float = field(
        default=0.5,
        validator=validators.gt(0.0),
        metadata={"doc": "of vectors: the noise, in standard deviations of each channel over an image's tokens"},
    )
    limit: int = field(
        default=1000,
        validator=[validators.ge(2), validators.le(20000)],
        metadata={"doc": "largest number of samples, and of held-out images; memory grows with its square"},
    )
    batch_size: int = field(default=100, validator=validators.ge(1), metadata={"doc": "images at once"})


class LatentMMD(Stage):
    """Compares the latents of the artifact "samples" with perturbed latents of held-out images."""

    Config = LatentMMDConfig
    uses = ("data",)
    needs = ("tokenizer", "samples")

    def __init__(self, config: LatentMMDConfig) -> None:
        self.config = config

    def check(self, context: StageContext) -> None:
        """The tokenizer fits the images, the strength its latent space, and its codebook has delta codes."""
        tokenizer = context.promise("tokenizer", TokenizerPromise)
        check_image_size(context, tokenizer)
        check_of_space(context, self.config, tokenizer.space, of_codes=["delta"], of_vectors=["tau"])
        size = tokenizer.space.codebook_size
        if size is not None and (self.config.delta or 0) > size:
            what = f"delta is {self.config.delta}, but the codebook has {size} codes"
            raise context.located(RobustokError(what), "delta")

    @torch.no_grad()
    def run(self, context: StageContext) -> Mapping[str, Result]:
        """Encodes the held-out images once, and perturbs them once for each alpha."""
        tokenizer: Any = context.load("tokenizer")
        of_samples = NpzImages(context.inputs["samples"] / "samples.npz").labels
        samples, images = in_proportion(of_samples, context.dataset().validation.labels, self.config.limit)
        if min(len(samples), len(images)) < 2:
            raise RobustokError("fewer than two of the samples and the held-out images have a class of the other")
        sampled = self._sampled(context, tokenizer, samples)
        real = self._encoded(context, tokenizer, images)
        generated, clean = _vectors(tokenizer, sampled), _vectors(tokenizer, real)
        distance = KernelDistance(generated, torch.cdist(generated, clean).square().median())
        by_alpha = {
            f"{alpha:g}": distance.to(_vectors(tokenizer, self._perturbed(context, tokenizer, real, alpha)))
            for alpha in self.config.alphas
        }
        best = min(by_alpha, key=lambda alpha: by_alpha[alpha])
        space = tokenizer.space
        strength = {"tau": self.config.tau} if space.codebook_size is None else {"delta": self._delta(space)}
        measured = partial(Result, num_images=len(generated), num_reference=len(clean))
        result = measured(
            by_alpha[best],
            higher_is_better=False,
            details={"by_alpha": by_alpha, "suggested_alpha": float(best), **strength},
        )
        return {"latent_mmd": result, "suggested_alpha": measured(float(best))}

    def _sampled(self, context: StageContext, tokenizer: Tokenizer, rows: Tensor) -> Latents:
        folder: Path = context.inputs["samples"]
        index = read_record(SamplesIndex, folder / INDEX)
        if index.latents_of is not None:
            check_latents_of(folder, index.latents_of, latent_fingerprint(tokenizer))
        array = read_array(folder / f"{array_name(tokenizer.space)}.npy", mapped=True)
        return from_array(array[rows.numpy()], tokenizer.space, "samples").to(context.device)

    def _encoded(self, context: StageContext, tokenizer: Tokenizer, rows: Tensor) -> Latents:
        images, chosen = context.dataset().validation, rows.tolist()
        batches = [
            chosen[start : start + self.config.batch_size] for start in range(0, len(chosen), self.config.batch_size)
        ]
        encoded = [tokenizer.encode(images.load(batch).to(context.device).images) for batch in batches]
        vectors = torch.cat([latents.vectors for latents in encoded if latents.vectors is not None])
        if tokenizer.space.codebook_size is None:
            return Latents(vectors=vectors)
        return Latents(vectors=vectors, codes=torch.cat([one.codes for one in encoded if one.codes is not None]))

    def _perturbed(self, context: StageContext, tokenizer: Tokenizer, real: Latents, alpha: float) -> Latents:
        if alpha * tokenizer.space.num_tokens < 0.5:  # rounded to whole tokens, none
            return real
        if tokenizer.space.codebook_size is None:
            options: Mapping[str, Any] = {
                "use": "gaussian",
                "scale": "relative",
                "strength": "fixed",
                "tau": self.config.tau,
            }
        else:
            options = {"use": "top_delta", "delta": self._delta(tokenizer.space)}
        perturbation = context.registry.build("perturbation", {"beta": 1.0, "alpha": alpha, **options})
        perturbation.check(tokenizer.space, len(real))
        draws = Draws.for_rows(context.seed, len(real), context.device).child("latent_mmd", alpha)
        perturbed, _ = perturbation.perturb(real, tokenizer.quantizer, draws=draws, progress=0.0)
        return perturbed

    def _delta(self, space: LatentSpace) -> int:
        assert space.codebook_size is not None
        return self.config.delta or min(space.codebook_size, max(2, round(_MIDDLE_DELTA * space.codebook_size)))


def in_proportion(samples: Tensor, images: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Rows of samples and of images in which the classes have the same shares, to within one sample.

    Images of all classes are taken in turn, and the first samples of each class. A class that one of the two lacks is
    left out of the other.

    Args:
        samples, images: (n,) and (m,) int64 labels. limit: the largest number of either.
    """
    order = class_balanced_order(images)
    rows = order[torch.isin(images[order], samples)][:limit]
    wanted = torch.bincount(images[rows], minlength=int(samples.max()) + 1).tolist()
    there = torch.bincount(samples, minlength=len(wanted)).tolist()
    shown = [(have, want) for have, want in zip(there, wanted, strict=True) if want]
    share = min((Fraction(have, want) for have, want in shown), default=Fraction(1))
    share = min(share, Fraction(limit, max(1, len(rows))))
    counts = torch.tensor([max(1, int(want * share)) if want else 0 for want in wanted])
    return (number_in_class(samples) < counts[samples]).nonzero().flatten(), rows


class KernelDistance:
    """The squared MMD between one set of vectors and others.

    Args:
        vectors: (n, D), n > 1. width: the median squared distance, in which the kernel's widths are measured.
    """

    def __init__(self, vectors: Tensor, width: Tensor) -> None:
        self.vectors, self.width = vectors, width.clamp_min(torch.finfo(width.dtype).tiny)
        self.within = self._without_self(vectors)

    def to(self, others: Tensor) -> float:
        """The distance to other vectors (m, D), m > 1."""
        between = torch.stack([one.mean() for one in self._kernels(self.vectors, others)]).mean()
        return float(self.within + self._without_self(others) - 2 * between)

    def _without_self(self, vectors: Tensor) -> Tensor:
        count = len(vectors)
        means = [(one.sum() - one.diagonal().sum()) / (count * (count - 1)) for one in self._kernels(vectors, vectors)]
        return torch.stack(means).mean()

    def _kernels(self, some: Tensor, others: Tensor) -> Iterator[Tensor]:
        squared = torch.cdist(some, others).square().double()
        for width in _WIDTHS:
            yield torch.exp(-squared / (self.width.double() * width))


def _vectors(tokenizer: Tokenizer, latents: Latents) -> Tensor:
    """(B, N D) float32: each image's latents as the decoder reads them."""
    return tokenizer.vectors_of(latents).flatten(1).float()
