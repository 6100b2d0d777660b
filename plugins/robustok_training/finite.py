"""Stops training when a loss or weight is not finite, before such a weight is saved in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from robustok_core.errors import RunError
from robustok_core.values.finite import all_finite
from robustok_training.distributed import all_known
from robustok_training.learned_state import learned_state
from robustok_training.sharding import local

_HINT = 'lower the learning rate, or use precision = "no"'


class NotFiniteError(RunError):
    """A loss, gradient or weight is infinite or not a number."""


def check_values(values: Mapping[str, float], *, step: int, stage: str, scaled: bool, kept: bool = False) -> None:
    """Raises RunError if a logged value is infinite or not a number.

    Args:
        values: by name. step: the number of completed steps. stage: the stage that trains.
        scaled: whether a gradient scaler is in use, which skips steps whose gradients overflow.
        kept: whether there are checkpoints of earlier steps.
    """
    not_finite = [name for name, value in values.items() if not math.isfinite(value)]
    broken = [name for name in not_finite if not (scaled and name.endswith("gradient_norm"))]
    if broken:
        what = f"{', '.join(broken)} {'is' if len(broken) == 1 else 'are'} not finite at step {step}"
        raise NotFiniteError(what, where=f"stage {stage}", hint=_hint(kept))


def check_modules(modules: Mapping[str, nn.Module], *, step: int, stage: str, kept: bool = False) -> None:
    """Raises RunError if a weight or buffer is infinite or not a number; `kept` as in `check_values`.

    A NaN gradient shows in the weights even if the loss before it was finite. Every process must call it, and all raise
    if one finds something: parts of divided weights and the statistics of batch norms differ between them.
    """
    not_finite = [
        f"{key} of {name!r}"
        for name, module in modules.items()
        for key, value in learned_state(module).items()
        if value.is_floating_point() and not all_finite(local(value))
    ]
    if found := all_known(not_finite[:1]):
        what = f"{found[0]} is not finite after step {step}"
        raise NotFiniteError(what, where=f"stage {stage}", hint=_hint(kept))


def _hint(kept: bool) -> str:
    return f"{_HINT}; earlier checkpoints are kept" if kept else _HINT
