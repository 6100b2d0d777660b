"""From noise to data along a velocity field: Euler, Heun, adaptive Runge-Kutta, and Euler-Maruyama.

All integrate from a time `start` in (0, 1] down to 0. Those with fixed steps spread all their steps over that
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
from robustok_core.recipe.validators import rounds_range
from robustok_core.values.finite import all_finite
from robustok_core.values.ignored import refuse_ignored
from robustok_generators.flow_path import Path, expected_noise, score_weight
from robustok_generators.repeated_step import Execution, execution_option

#: v(x, t): the velocity of a state of any shape at a time in [0, 1].
Velocity = Callable[[Tensor, float], Tensor]
#: Standard normal numbers for step i, in the shape of the state.
Noise = Callable[[int], Tensor]

#: Share of the interval of Euler-Maruyama's last step, which adds no noise, as in SiT (arXiv 2401.08740).
_LAST_STEP = 0.04


@frozen(kw_only=True)
class FlowSampling:
    """Options of the sampler."""

    method: Literal["euler", "heun", "heun2", "dopri5", "euler_maruyama"] = field(
        default="euler",
        metadata={
            "doc": "euler; heun, whose last step is Euler's as in EDM; heun2, all of whose steps are Heun's; dopri5: "
            "adaptive steps; euler_maruyama: adds noise in each step"
        },
    )
    steps: int = field(
        default=50,
        validator=rounds_range,
        metadata={
            "doc": "steps of the fixed-step methods; published: 250 of euler_maruyama, 249 of euler (LightningDiT)"
        },
    )
    timestep_shift: float = field(
        default=1.0,
        validator=validators.gt(0.0),
        metadata={"doc": "s: a share d of the steps covers a share s d / (1 + (s - 1) d) of the time; 1: equal steps"},
    )
    tolerance: float = field(
        default=1e-5,
        validator=validators.gt(0.0),
        metadata={"doc": "absolute and relative error allowed per step of dopri5"},
    )
    execution: Execution = execution_option()

    def __attrs_post_init__(self) -> None:
        adapts = self.method == "dopri5"
        refuse_ignored(self, "steps", "timestep_shift", unless=not adapts, needs="a method other than dopri5")
        refuse_ignored(self, "tolerance", unless=adapts, needs='method = "dopri5"')

    def times(self, start: float) -> list[float]:
        """The steps + 1 times of a fixed-step method, from `start` down to 0."""
        reach = 1.0 - _LAST_STEP if self.method == "euler_maruyama" else 1.0
        last = max(1, self.steps - (self.method == "euler_maruyama"))
        done = [reach * step / last for step in range(self.steps)]
        return [start * (1.0 - self._shifted(share)) for share in done] + [0.0]

    def _shifted(self, done: float) -> float:
        return self.timestep_shift * done / (1.0 + (self.timestep_shift - 1.0) * done)


def integrate(
    velocity: Velocity,
    x: Tensor,
    sampling: FlowSampling,
    *,
    start: float = 1.0,
    noise: Noise,
    path: Path = "linear",
) -> Tensor:
    """Integrates x from time `start` to time 0.

    Args:
        velocity: v(x, t).
        x: a state of any shape; dopri5 adapts its steps to the state as a whole.
        sampling: method and steps.
        start: in (0, 1].
        noise: the noise that euler_maruyama adds in step i; not used by the other methods.
        path: the path of the velocities, on which euler_maruyama's drift depends.

    Raises:
        RunError: with dopri5, a velocity is not finite or no step is short enough.
    """
    if sampling.method == "dopri5":
        return _dopri5(velocity, x, sampling.tolerance, start)
    steps = list(pairwise(sampling.times(start)))
    for number, (t, until) in enumerate(steps):
        last = number == len(steps) - 1
        if sampling.method == "euler_maruyama":
            x = _diffused(velocity, x, t, until, None if last else noise(number), path)
        elif sampling.method == "heun2" or (sampling.method == "heun" and not last):
            x = _heun(velocity, x, t, until)
        else:
            x = x + (until - t) * velocity(x, t)
    return x


def _heun(velocity: Velocity, x: Tensor, t: float, until: float) -> Tensor:
    """A step along the mean of the velocities at its two ends."""
    first = velocity(x, t)
    second = velocity(x + (until - t) * first, until)
    return x + (until - t) * 0.5 * (first + second)


def _diffused(velocity: Velocity, x: Tensor, t: float, until: float, noise: Tensor | None, path: Path) -> Tensor:
    """A step of the SDE with diffusion w = 2 t, whose states have the same distribution as the flow's.

    Its drift is v - w/2 score. On the linear path w/2 score = t (-noise / t), so the drift is the velocity plus the
    expected noise.
    """
    v = velocity(x, t)
    x = x + (until - t) * (v + score_weight(t, path) * expected_noise(x, v, t, path))
    return x if noise is None else x + math.sqrt(2.0 * t * (t - until)) * noise


def _dopri5(velocity: Velocity, x: Tensor, tolerance: float, start: float) -> Tensor:
    """SciPy's Dormand-Prince method of order 5(4), with a float64 state."""
    from scipy.integrate import solve_ivp

    def slope(t: float, flat: object) -> object:
        state = torch.as_tensor(flat, dtype=x.dtype, device=x.device).view_as(x)
        derivative = velocity(state, float(t)).flatten().double().cpu()
        if not all_finite(derivative):  # SciPy would search for a short enough step forever
            raise RunError(f"the velocity at time {t:g} is not finite", where="dopri5")
        return derivative.numpy()

    initial = x.flatten().double().cpu().numpy()
    solution = solve_ivp(slope, (start, 0.0), initial, method="RK45", t_eval=[0.0], rtol=tolerance, atol=tolerance)
    if not solution.success:
        raise RunError(
            f"dopri5 stopped: {solution.message}",
            where="sampling.tolerance",
            hint="allow a larger tolerance, or use the method heun",
        )
    return torch.as_tensor(solution.y[:, -1], dtype=x.dtype, device=x.device).view_as(x)
