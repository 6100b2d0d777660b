"""From noise to data along a velocity field: Euler, Heun, adaptive Runge-Kutta, and Euler-Maruyama.

All of them go from a time `start` in (0, 1] down to 0. Those with fixed steps share their steps out over that
interval, however short it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.recipe.validators import finite
from robustok_generators.flow_path import expected_noise

#: v(x, t): the velocity of a state of any shape at a time in [0, 1].
Velocity = Callable[[Tensor, float], Tensor]
#: Standard normal numbers in the shape of the state, those of step i.
Noise = Callable[[int], Tensor]

#: Share of the interval that Euler-Maruyama leaves for its last step, which adds no noise: SiT's (arXiv 2401.08740).
_LAST_STEP = 0.04

_STEPS, _TOLERANCE = 50, 1e-5


@frozen(kw_only=True)
class FlowSampling:
    """Options of the sampler."""

    method: Literal["euler", "heun", "dopri5", "euler_maruyama"] = field(
        default="euler",
        metadata={"doc": "euler, heun: fixed steps; dopri5: as many as it needs; euler_maruyama: adds noise each step"},
    )
    steps: int = field(
        default=_STEPS,
        validator=validators.ge(1),
        metadata={"doc": "of the fixed-step methods; published: 250 of euler_maruyama, 249 of euler (LightningDiT)"},
    )
    timestep_shift: float = field(
        default=1.0,
        validator=[validators.gt(0.0), finite],
        metadata={"doc": "s: a share d of the steps covers s d / (1 + (s - 1) d) of the time; 1: equal steps"},
    )
    tolerance: float = field(
        default=_TOLERANCE,
        validator=[validators.gt(0.0), finite],
        metadata={"doc": "of dopri5: error allowed in a step, absolute and relative"},
    )

    def __attrs_post_init__(self) -> None:
        if self.method == "dopri5" and (self.steps, self.timestep_shift) != (_STEPS, 1.0):
            raise ValueError("dopri5 chooses its own steps: leave out steps and timestep_shift")
        if self.method != "dopri5" and self.tolerance != _TOLERANCE:
            raise ValueError(f"tolerance is for dopri5; {self.method} takes as many steps as it is told")

    def times(self, start: float) -> list[float]:
        """The steps + 1 times of a fixed-step method, from `start` down to 0."""
        reach = 1.0 - _LAST_STEP if self.method == "euler_maruyama" else 1.0
        last = max(1, self.steps - (self.method == "euler_maruyama"))
        done = [reach * step / last for step in range(self.steps)]
        return [start * (1.0 - self._shifted(share)) for share in done] + [0.0]

    def _shifted(self, done: float) -> float:
        return self.timestep_shift * done / (1.0 + (self.timestep_shift - 1.0) * done)


def integrate(velocity: Velocity, x: Tensor, sampling: FlowSampling, *, start: float = 1.0, noise: Noise) -> Tensor:
    """The state at time 0 that x at time `start` flows to.

    Args:
        velocity: v(x, t).
        x: a state of any shape; dopri5 takes all of it for one and fits its steps to it.
        sampling: method and steps.
        start: in (0, 1].
        noise: what euler_maruyama adds in step i; the other methods ask for none.

    Raises:
        RunError: where dopri5 meets a velocity that is not finite, or finds no step that is short enough.
    """
    if sampling.method == "dopri5":
        return _dopri5(velocity, x, sampling.tolerance, start)
    steps = list(pairwise(sampling.times(start)))
    for number, (t, until) in enumerate(steps):
        last = number == len(steps) - 1
        if sampling.method == "euler_maruyama":
            x = _diffused(velocity, x, t, until, None if last else noise(number))
        elif sampling.method == "heun" and not last:
            x = _heun(velocity, x, t, until)
        else:
            x = x + (until - t) * velocity(x, t)
    return x


def _heun(velocity: Velocity, x: Tensor, t: float, until: float) -> Tensor:
    """A step along the mean of the velocities at its two ends; the last step of a sampling is Euler's (EDM)."""
    first = velocity(x, t)
    second = velocity(x + (until - t) * first, until)
    return x + (until - t) * 0.5 * (first + second)


def _diffused(velocity: Velocity, x: Tensor, t: float, until: float, noise: Tensor | None) -> Tensor:
    """A step of the SDE with diffusion w = 2 t, whose states are distributed as those of the flow.

    Its drift is v - w/2 score, and w/2 score = t (-noise / t): so it is the velocity plus the expected noise.
    """
    v = velocity(x, t)
    x = x + (until - t) * (v + expected_noise(x, v, t))
    return x if noise is None else x + math.sqrt(2.0 * t * (t - until)) * noise


def _dopri5(velocity: Velocity, x: Tensor, tolerance: float, start: float) -> Tensor:
    """Dormand and Prince's method of order 5(4), SciPy's, with a float64 state."""
    from scipy.integrate import solve_ivp

    def slope(t: float, flat: object) -> object:
        state = torch.as_tensor(flat, dtype=x.dtype, device=x.device).view_as(x)
        found = velocity(state, float(t)).flatten().double().cpu()
        if not found.isfinite().all():  # SciPy would look for a short enough step for ever
            raise RunError(f"the velocity at time {t:g} is not finite", where="dopri5")
        return found.numpy()

    first = x.flatten().double().cpu().numpy()
    found = solve_ivp(slope, (start, 0.0), first, method="RK45", t_eval=[0.0], rtol=tolerance, atol=tolerance)
    if not found.success:
        raise RunError(
            f"dopri5 stopped: {found.message}",
            where="sampling.tolerance",
            hint="allow a larger tolerance, or take the method heun",
        )
    return torch.as_tensor(found.y[:, -1], dtype=x.dtype, device=x.device).view_as(x)
