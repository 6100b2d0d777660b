"""The straight path from data to noise: x_t = (1 - t) data + t noise (Lipman et al. 2022, arXiv 2210.02747).

t = 0 is data and t = 1 is noise, everywhere in this package. Along the path the velocity is noise - data; a
network learns its mean at each point, which is what carries noise to data.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustok_core.values.draws import Draws

Times = Literal["uniform", "logit_normal"]


def between(data: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
    """The point x_t (B, N, D) of the path; t in [0, 1] is one number, or (B, 1, 1)."""
    return (1.0 - t) * data + t * noise


def velocity_between(data: Tensor, noise: Tensor) -> Tensor:
    """What x_t changes by per unit of t, the same at every t."""
    return noise - data


def expected_noise(x: Tensor, velocity: Tensor, t: float) -> Tensor:
    """The mean of the noise at a point of time t, from the mean velocity there; -1/t of it is the score."""
    return x + (1.0 - t) * velocity


def training_times(draws: Draws, how: Times) -> Tensor:
    """(B,) in [0, 1): uniform, or the sigmoid of a standard normal number, which is seldom near 0 and 1."""
    return draws.uniform() if how == "uniform" else torch.sigmoid(draws.normal())


def angle_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - cosine of the angle between velocities (..., D), averaged: LightningDiT's (arXiv 2501.01423, section 4)."""
    return (1.0 - F.cosine_similarity(found, wanted, dim=-1)).mean()
