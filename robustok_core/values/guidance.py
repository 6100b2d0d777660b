"""Classifier-free guidance."""

from __future__ import annotations

import math
from typing import Literal

from attrs import field, frozen, validators

from robustok_core.values.ignored import refuse_ignored

_finite = validators.lt(math.inf)


@frozen(kw_only=True)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022): unconditional + w (conditional - unconditional).

    The weight w depends on s, the completed share of the sampling (of the tokens, or of the integration time),
    from 0 to 1: "constant" g; "linear" 1 + (g - 1) s^p; "cosine" 1 + (g - 1) (1 - cos(pi s^p)) / 2, which is
    RAR's for a power p other than 1. Outside [start, stop) there is no guidance (w = 1), except for the first step
    with `guide_first`. GigaTok's "step" schedule over N tokens from r on is `start` = r (N - 1) / N with `guide_first`.
    """

    scale: float = field(
        default=1.0,
        validator=[validators.ge(0.0), _finite],
        metadata={
            "doc": "g, the final weight; 1 for no guidance",
            "needed_by": ("schedule", "power", "start", "stop", "guide_first"),
        },
    )
    schedule: Literal["constant", "linear", "cosine"] = field(
        default="constant", metadata={"doc": "how the weight grows during sampling"}
    )
    power: float = field(
        default=1.0, validator=[validators.gt(0.0), _finite], metadata={"doc": "exponent of s; above 1 guides later"}
    )
    start: float = field(
        default=0.0,
        validator=[validators.ge(0.0), validators.le(1.0)],
        metadata={"doc": "share of the sampling at which guidance begins"},
    )
    stop: float = field(
        default=1.0,
        validator=[validators.ge(0.0), validators.le(1.0)],
        metadata={"doc": "share of the sampling at which guidance ends"},
    )
    guide_first: bool = field(
        default=False, metadata={"doc": "guide the first step although guidance begins later, as GigaTok's code does"}
    )

    def __attrs_post_init__(self) -> None:
        grows, late = self.schedule != "constant", self.start > 0.0 or self.stop == 0.0
        refuse_ignored(self, "power", unless=grows, needs='schedule = "linear" or "cosine"')
        needs = 'schedule = "constant" and a start above 0'  # the others begin with a weight of 1
        refuse_ignored(self, "guide_first", unless=late and not grows, needs=needs)
        some = self.start < self.stop or self.guide_first
        refuse_ignored(self, "start", "stop", unless=some, needs="a start below stop, or guide_first = true")

    @property
    def active(self) -> bool:
        """Whether guidance has any effect."""
        return self.scale != 1.0 and (self.start < self.stop or self.guide_first)

    def weight(self, done: float) -> float:
        """The weight after a share `done` in [0, 1) of the sampling."""
        if not (self.start <= done < self.stop or (self.guide_first and done == 0.0)):
            return 1.0
        grown = done**self.power
        shares = {"constant": 1.0, "linear": grown, "cosine": 0.5 - 0.5 * math.cos(math.pi * grown)}
        return 1.0 + (self.scale - 1.0) * shares[self.schedule]
