"""Paths from data to noise (Lipman et al. 2022, arXiv 2210.02747; Ma et al. 2024, arXiv 2401.08740).

linear: x_t = (1 - t) data + t noise. cosine: x_t = cos(pi t / 2) data + sin(pi t / 2) noise.

In this package t = 0 is data and t = 1 is noise. The velocity is the derivative of x_t with respect to t; a network
learns its mean at each point, which transports noise to data.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustok_core.values.draws import Draws

Path = Literal["linear", "cosine"]
Times = Literal["uniform", "logit_normal"]
_QUARTER = math.pi / 2


def between(data: Tensor, noise: Tensor, t: Tensor | float, path: Path = "linear") -> Tensor:
    """The point x_t (B, N, D) of the path; t in [0, 1] is a number, or (B, 1, 1)."""
    if path == "linear":
        return (1.0 - t) * data + t * noise
    cosine, sine = _quarter_turn(t)
    return cosine * data + sine * noise


def velocity_between(data: Tensor, noise: Tensor, t: Tensor | float = 0.0, path: Path = "linear") -> Tensor:
    """The derivative of x_t with respect to t; constant along the linear path."""
    if path == "linear":
        return noise - data
    cosine, sine = _quarter_turn(t)
    return _QUARTER * (cosine * noise - sine * data)


def expected_noise(x: Tensor, velocity: Tensor, t: float, path: Path = "linear") -> Tensor:
    """The mean noise at x and time t, from the mean velocity there; see `score_weight`."""
    if path == "linear":
        return x + (1.0 - t) * velocity
    cosine, sine = _quarter_turn(t)
    return sine * x + cosine * velocity / _QUARTER


def score_weight(t: float, path: Path) -> float:
    """-t times the score at time t in (0, 1] is this number times the expected noise: t over the share of noise."""
    return 1.0 if path == "linear" else t / math.sin(_QUARTER * t)


def _quarter_turn(t: Tensor | float) -> tuple[Any, Any]:
    """Cosine and sine of pi t / 2; both numbers, or both tensors."""
    angle = _QUARTER * t
    return (angle.cos(), angle.sin()) if isinstance(angle, Tensor) else (math.cos(angle), math.sin(angle))


def training_times(draws: Draws, how: Times) -> Tensor:
    """(B,) in [0, 1): uniform, or the sigmoid of a standard normal number, rarely near 0 and 1."""
    return draws.uniform() if how == "uniform" else torch.sigmoid(draws.normal())


def angle_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """The mean of 1 - cosine similarity of velocities (..., D) (LightningDiT, arXiv 2501.01423, section 4)."""
    return (1.0 - F.cosine_similarity(predicted, wanted, dim=-1)).mean()
