"""How a generator of vectors errs: the difference between real latents and those that keep a share sigma of them.

Beside each measurement stands that of independent noise of the same size, as the perturbation `gaussian` and the
metric `noise_pfd` add it. Where the two differ, that noise does not imitate the generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import asdict, frozen
from torch import Tensor

from robustok_blocks.spread import spread
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.precision import Precision
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents
from robustok_toolkit.beside_real import made_beside_real
from robustok_toolkit.generating import gather_own
from robustok_training.batches import balanced_halves

#: The shares of images that are kept, if no others are named: those of the study of post-training (docs/results.md).
SIGMAS = (0.9, 0.8, 0.6, 0.4)
#: The main directions of the data are those of half of the images, and one image has none.
LEAST_IMAGES = 3
#: The main directions of the data hold this share of its variance.
_MAIN_SHARE = 0.5
#: An image's spread is at least this share of the spread over all images, and a channel's of that of all channels.
_LEAST_SPREAD = 0.01


@frozen(kw_only=True)
class Shape:
    """The shape of errors (n, N, D), whatever their size.

    Attributes:
        along_data: share of their energy along the main directions of real latents, which hold half of the variance:
            errors of one half of each class, directions of the other half.
        inflation: variance of the latents with errors over that of real ones, mean of the channels.
        neighbour_correlation: of the errors of tokens beside or below each other; None where tokens have no grid.
        largest_tenth: share of an image's energy that lies in the tenth of its tokens with the largest errors.
        isotropy: how evenly the channels take part, in (0, 1]: (tr C)^2 / (D tr C^2) of their covariance C.
    """

    along_data: float
    inflation: float
    neighbour_correlation: float | None
    largest_tenth: float
    isotropy: float


@frozen(kw_only=True)
class VectorErrors:
    """The errors of a generator that keeps a share sigma.

    Attributes:
        size: their root mean square, in standard deviations of each channel over the tokens of the image.
        made: their shape. noise: that of independent noise of the same size.
    """

    size: float
    made: Shape
    noise: Shape


@frozen
class ErrorsBySigma:
    """The errors of a generator at each share that it keeps of the images."""

    by_sigma: Mapping[str, VectorErrors]

    def as_details(self) -> Mapping[str, Any]:
        """The attributes by sigma."""
        return {sigma: asdict(errors) for sigma, errors in self.by_sigma.items()}

    def numbers(self) -> Mapping[str, float]:
        """The main ones of the first sigma, as results are named."""
        first = next(iter(self.by_sigma.values()))
        numbers = {"error_size": first.size, "along_data": first.made.along_data, "inflation": first.made.inflation}
        correlation = first.made.neighbour_correlation
        return numbers if correlation is None else numbers | {"neighbour_correlation": correlation}


@frozen(kw_only=True, eq=False)
class MadeLatents:
    """Real latents (n, N, D), and what a generator made of them, float32, of all processes; labels (n,) int64."""

    real: Tensor
    made: Tensor
    labels: Tensor
    grid: tuple[int, int] | None


@torch.no_grad()
def made_keeping(
    tokenizer: Tokenizer,
    generator: Generator,
    images: Images,
    rows: Sequence[int],
    *,
    sigma: float,
    seed: int,
    guidance: Guidance,
    sampling: Any = None,
    precision: Precision = "no",
    batch_size: int = 50,
) -> MadeLatents:
    """Encodes images and lets a generator make latents that keep a share sigma of them.

    All processes must call it, share the images and get all latents. Row i depends only on image i and the seed.

    Args:
        rows: indices of images. sigma: in [0, 1].
        guidance, sampling: of the generator. precision: its; the tokenizer uses float32.

    Raises:
        RobustokError: the generator was not trained for guidance.
    """
    generator.check_guidance(guidance)
    space, device = tokenizer.space, next(generator.parameters()).device
    none = torch.empty(0, space.num_tokens, space.width, device=device)
    real_parts, made_parts = [none], [none]

    def kept_of(labels: Tensor, draws: Draws, real: Latents) -> Latents:
        kept = Keep(latents=real, sigma=sigma)
        return generator.sample(labels, draws, guidance=guidance, keep=kept, sampling=sampling)

    options: Mapping[str, Any] = {"seed": seed, "precision": precision, "batch_size": batch_size}
    for real, made in made_beside_real(tokenizer, images, rows, kept_of, device=device, **options):
        assert real.vectors is not None
        assert made.vectors is not None
        real_parts.append(real.vectors.float())
        made_parts.append(made.vectors.float())
    real_of_all, made_of_all = (gather_own(torch.cat(parts), len(rows)) for parts in (real_parts, made_parts))
    return MadeLatents(real=real_of_all, made=made_of_all, labels=images.labels[list(rows)], grid=space.grid)


def vector_errors(latents: MadeLatents, seed: int) -> VectorErrors:
    """Measures the errors of at least three images; `seed` is that of the noise beside them."""
    real, errors = latents.real.double(), (latents.made - latents.real).double()
    usual = real.flatten(0, 1).std(0)
    least = _LEAST_SPREAD * usual.square().mean().sqrt()  # a channel may be constant in all images
    usual = usual.clamp_min(float(least)).clamp_min(torch.finfo(torch.float32).tiny)
    unit = torch.maximum(spread(real), _LEAST_SPREAD * usual)  # a channel may be constant in an image
    size = float((errors / unit).square().mean().sqrt())
    drawn = Draws.for_rows(seed, len(real), real.device).child("vector_errors").normal(*real.shape[1:])
    noise = size * unit * drawn.double()
    others, measured = balanced_halves(latents.labels)  # every other image may be of other classes
    main = _main_directions(real[others])
    shapes = {}
    for name, found in (("made", errors), ("noise", noise)):
        flat = found[measured].flatten(1)
        along_data = _ratio((flat @ main).square().sum(), flat.square().sum())
        shapes[name] = _shape(real, found, unit, along_data, latents.grid)
    return VectorErrors(size=size, **shapes)


def _shape(real: Tensor, errors: Tensor, unit: Tensor, along_data: float, grid: tuple[int, int] | None) -> Shape:
    scaled = errors / unit
    by_token = scaled.square().sum(-1)  # (n, N)
    tenth = max(1, by_token.shape[1] // 10)
    covariance = torch.einsum("b n d, b n e -> d e", scaled, scaled)
    before, after = (vectors.flatten(0, 1).var(0) for vectors in (real, real + errors))
    varying = before > _LEAST_SPREAD**2 * before.mean()
    return Shape(
        along_data=along_data,
        inflation=float((after[varying] / before[varying]).mean()) if varying.any() else 1.0,
        neighbour_correlation=None if grid is None else _neighbour_correlation(scaled, grid),
        largest_tenth=_ratio(by_token.topk(tenth, dim=1).values.sum(), by_token.sum()),
        isotropy=_ratio(covariance.trace().square(), len(covariance) * covariance.square().sum()),
    )


def _main_directions(real: Tensor) -> Tensor:
    """(N D, k) orthonormal: the fewest principal directions of images (n, N, D) that hold half of their variance."""
    flat = real.flatten(1)
    _, singular, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    held = singular.square().cumsum(0) / singular.square().sum().clamp_min(1e-300)
    count = int((held < _MAIN_SHARE).sum()) + 1
    return directions[:count].T


def _neighbour_correlation(errors: Tensor, grid: tuple[int, int]) -> float:
    """The correlation of errors (n, N, D) between tokens that are beside or below each other."""
    on_grid = errors.unflatten(1, grid)  # (n, rows, columns, D)
    pairs = [(on_grid[:, 1:], on_grid[:, :-1]), (on_grid[:, :, 1:], on_grid[:, :, :-1])]
    products = sum((some * others).sum() for some, others in pairs)
    squares = sum(((some.square() + others.square()) / 2).sum() for some, others in pairs)
    return _ratio(torch.as_tensor(products), torch.as_tensor(squares))


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole > 0 else 0.0
