"""A diagonal Gaussian posterior over latents (Kingma & Welling 2013), as in latent diffusion's autoencoders."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.values.latents import Latents

#: Bounds of log variances, as in latent diffusion's code: their exp() is finite and above zero.
_SMALLEST, _LARGEST = -30.0, 20.0


def kl_weight_field() -> Any:
    """The option `kl_weight` of a tokenizer with a Gaussian posterior."""
    return field(
        default=1e-6,
        validator=validators.ge(0.0),
        metadata={"doc": "weight of the KL divergence from a standard normal, summed over an image's latents, in nats"},
    )


@frozen(kw_only=True, eq=False)
class GaussianPosterior:
    """Independent normal distributions; `mean` and `log_variance` are (B, N, D) float32."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of_moments(cls, moments: Tensor) -> GaussianPosterior:
        """Splits an encoder's output (B, N, 2 D) into means and log variances."""
        mean, log_variance = moments.float().chunk(2, dim=-1)  # float32: a bfloat16 variance has only 3 digits
        return cls(mean=mean, log_variance=log_variance.clamp(_SMALLEST, _LARGEST))

    @property
    def std(self) -> Tensor:
        """(B, N, D) standard deviations."""
        return (0.5 * self.log_variance).exp()

    def sample(self) -> Tensor:
        """(B, N, D), drawn from torch's global generator, which the training loop seeds at each step."""
        return self.mean + self.std * torch.randn_like(self.mean)

    def divergence(self) -> Tensor:
        """(B, N) Kullback-Leibler divergence of each token from a standard normal, in nats."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1.0 - self.log_variance).sum(-1)


def posterior_latents(moments: Tensor, *, training: bool, kl_weight: float) -> Latents:
    """Latents from moments (B, N, 2 D): in training a sample with the loss "kl", otherwise the means.

    `features` are the means. The loss is kl_weight times the divergence per image, averaged over images.
    """
    posterior = GaussianPosterior.of_moments(moments)
    if not training:
        return Latents(vectors=posterior.mean, features=posterior.mean)
    loss = kl_weight * posterior.divergence().sum(dim=1).mean()
    return Latents(vectors=posterior.sample(), features=posterior.mean, losses={"kl": loss})
