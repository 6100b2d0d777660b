"""Measures how a generator errs; of codes: it samples each of held-out images after the true codes before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import asdict, frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.precision import Precision
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Latents
from robustok_core.values.numbers import finite_only
from robustok_toolkit.beside_real import made_beside_real
from robustok_toolkit.generating import gather_own
from robustok_toolkit.rank_law import check_ranked, law_of, ranks_of
from robustok_toolkit.vector_errors import LEAST_IMAGES, SIGMAS, ErrorsBySigma, made_keeping, vector_errors
from robustok_training.batches import class_balanced_order

#: The paper's delta as a share of the codebook.
DELTA_SHARE = 100 / 4096


@frozen(kw_only=True)
class Errors:
    """How the draws of a generator differ from the true codes, at one guidance scale.

    Attributes:
        changed: share of the draws that are another code.
        relative_rank: of those, the mean rank among the true code's neighbours over K, in (0, 1); 0 if there are none.
        within_delta: of those, the share among the delta - 1 nearest, for the paper's delta (100 of 4,096 codes).
        shares: their law, the option of the perturbation rank_law.
        changed_by_position, rank_by_position: the first two for each token; the rank is NaN where no draw differs.
    """

    changed: float
    relative_rank: float
    within_delta: float
    shares: Sequence[float]
    changed_by_position: Sequence[float]
    rank_by_position: Sequence[float]

    def as_details(self) -> Mapping[str, Any]:
        """Its attributes by name, as JSON has them: None for NaN."""
        details: Mapping[str, Any] = finite_only(asdict(self))
        return details

    def numbers(self) -> Mapping[str, float]:
        """The main ones, as results are named."""
        return {"changed": self.changed, "relative_rank": self.relative_rank, "within_delta": self.within_delta}


def check_calibration(generator: Generator | type[Generator], codebook_size: int | None) -> None:
    """Raises RobustokError if a generator does not sample after true codes, or they cannot be ranked."""
    check_ranked(codebook_size, "calibrate")
    kind = generator if isinstance(generator, type) else type(generator)
    if kind.sample_forced is Generator.sample_forced:
        what = f"{kind.__name__} does not implement `sample_forced`: it cannot sample codes after the true ones"
        raise RobustokError(what, hint="use a generator of codes that does, such as rar, llamagen_gpt or maskgit")


def wrong_option(
    generator: Generator, *, limit: int, sigmas: Sequence[float] | None, scales: Sequence[float]
) -> tuple[str, RobustokError] | None:
    """Which option, "limit", "sigmas" or "scales", does not fit the generator, and why.

    Args:
        generator: may be on the meta device.
    """
    codebook_size = generator.space.codebook_size
    if codebook_size is None and limit < LEAST_IMAGES:
        what = f"the errors of vectors are measured over at least {LEAST_IMAGES} images, not {limit}"
        return "limit", RobustokError(what)
    if codebook_size is not None and sigmas:
        return "sigmas", RobustokError("sigmas are of vectors, and this latent space has codes", hint="leave it out")
    for scale in scales:
        try:
            generator.check_guidance(Guidance(scale=scale))
        except RobustokError as error:
            return "scales", RobustokError(error.what, hint="leave it out, or train with label_dropout above 0")
    return None


def errors_of_generator(
    tokenizer: Tokenizer,
    generator: Generator,
    images: Images,
    rows: Sequence[int],
    *,
    sigmas: Sequence[float] | None = None,
    **options: Any,
) -> Errors | ErrorsBySigma:
    """Measures a generator of codes as `forced_ranks` does, one of vectors as `made_keeping` does for each sigma.

    Args:
        options: of either function.

    Raises:
        RobustokError: as they do.
    """
    size = tokenizer.space.codebook_size
    if size is not None:
        return errors_of(forced_ranks(tokenizer, generator, images, rows, **options), size)
    found = {}
    for sigma in sigmas or SIGMAS:
        made = made_keeping(tokenizer, generator, images, rows, sigma=sigma, **options)
        found[f"{sigma:g}"] = vector_errors(made, options["seed"])
    return ErrorsBySigma(found)


@torch.no_grad()
def forced_ranks(
    tokenizer: Tokenizer,
    generator: Generator,
    images: Images,
    rows: Sequence[int],
    *,
    seed: int,
    guidance: Guidance,
    sampling: Any = None,
    precision: Precision = "no",
    batch_size: int = 50,
) -> Tensor:
    """(n, N) int64: the rank of each code that is drawn for n images, 0 where it is the true one.

    All processes must call it, share the images and get all ranks. Row i depends only on image i and the seed.

    Args:
        rows: indices of images.
        guidance, sampling: of the generator. precision: its; the tokenizer uses float32.

    Raises:
        RobustokError: the generator cannot do this, or was not trained for guidance.
    """
    check_calibration(generator, tokenizer.space.codebook_size)
    generator.check_guidance(guidance)
    assert tokenizer.quantizer is not None
    device = next(generator.parameters()).device
    none = torch.empty(0, tokenizer.space.num_tokens, dtype=torch.int64, device=device)
    true_codes, drawn_codes = [none], [none]

    def drawn_after(labels: Tensor, draws: Draws, real: Latents) -> Latents:
        return generator.sample_forced(labels, draws, real=real, guidance=guidance, sampling=sampling)

    options: Mapping[str, Any] = {"seed": seed, "precision": precision, "batch_size": batch_size}
    for real, drawn in made_beside_real(tokenizer, images, rows, drawn_after, device=device, **options):
        assert real.codes is not None
        assert drawn.codes is not None
        true_codes.append(real.codes)
        drawn_codes.append(drawn.codes)
    true = torch.cat(true_codes)
    ranks = ranks_of(torch.cat(drawn_codes).flatten(), true.flatten(), tokenizer.quantizer).view_as(true)
    return gather_own(ranks, len(rows))


def held_out_rows(images: Images, limit: int) -> list[int]:
    """The first images, all classes as often as each other where there are enough."""
    rows: list[int] = class_balanced_order(images.labels)[:limit].tolist()
    return rows


def paper_delta(codebook_size: int) -> int:
    """The paper's delta at this codebook's size: the code itself and at least one other."""
    return max(2, round(DELTA_SHARE * codebook_size))


def errors_of(ranks: Tensor, codebook_size: int) -> Errors:
    """Sums up ranks (n, N) int64."""
    wrong = ranks > 0
    relative = ranks.double() / codebook_size
    count = wrong.sum(0)
    within = (wrong & (ranks < paper_delta(codebook_size))).sum() / wrong.sum().clamp_min(1)
    return Errors(
        changed=float(wrong.double().mean()),
        relative_rank=float(relative.sum() / wrong.sum().clamp_min(1)),
        within_delta=float(within),
        shares=[round(share, 5) for share in law_of(ranks.flatten(), codebook_size)],
        changed_by_position=[float(share) for share in wrong.double().mean(0)],
        rank_by_position=[float(mean) for mean in relative.sum(0) / count],
    )
