"""The straight path from data to noise: x_t = (1 - t) data + t noise (Lipman et al. 2022, arXiv 2210.02747).

In this package t = 0 is data and t = 1 is noise. The velocity along the path is noise - data; a network learns its
mean at each point, which transports noise to data.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustok_core.values.draws import Draws

Times = Literal["uniform", "logit_normal"]


def between(data: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
    """The point x_t (B, N, D) of the path; t in [0, 1] is a number, or (B, 1, 1)."""
    return (1.0 - t) * data + t * noise


def velocity_between(data: Tensor, noise: Tensor) -> Tensor:
    """The derivative of x_t with respect to t, constant along the path."""
    return noise - data


def expected_noise(x: Tensor, velocity: Tensor, t: float) -> Tensor:
    """The mean noise at x and time t, from the mean velocity there; the score is -1/t times it."""
    return x + (1.0 - t) * velocity


def training_times(draws: Draws, how: Times) -> Tensor:
    """(B,) in [0, 1): uniform, or the sigmoid of a standard normal number, rarely near 0 and 1."""
    return draws.uniform() if how == "uniform" else torch.sigmoid(draws.normal())


def angle_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """The mean of 1 - cosine similarity of velocities (..., D) (LightningDiT, arXiv 2501.01423, section 4)."""
    return (1.0 - F.cosine_similarity(predicted, wanted, dim=-1)).mean()
