"""Classifier-free guidance."""

from __future__ import annotations

import math
from typing import Literal

from attrs import field, frozen, validators

_finite = validators.lt(math.inf)


@frozen(kw_only=True)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022): unconditional + w (conditional - unconditional).

    The weight w changes along the sampling, from s = 0 at its beginning to 1 at its end (tokens drawn, or
    time integrated): "constant" g; "linear" 1 + (g - 1) s^p; "cosine" 1 + (g - 1) (1 - cos(pi s^p)) / 2, which
    with a power p other than 1 is RAR's. Outside of [start, stop) there is no guidance (w = 1).
    """

    scale: float = field(
        default=1.0, validator=[validators.ge(0.0), _finite], metadata={"doc": "g, the weight reached; 1 is none"}
    )
    schedule: Literal["constant", "linear", "cosine"] = field(
        default="constant", metadata={"doc": "how the weight grows along the sampling"}
    )
    power: float = field(
        default=1.0, validator=[validators.gt(0.0), _finite], metadata={"doc": "exponent of s: above 1 guides later"}
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

    @property
    def active(self) -> bool:
        """Whether there is any guidance."""
        return self.scale != 1.0 and self.start < self.stop

    def weight(self, done: float) -> float:
        """The weight when a share `done` in [0, 1) of the sampling is done."""
        if not self.start <= done < self.stop:
            return 1.0
        grown = done**self.power
        shares = {"constant": 1.0, "linear": grown, "cosine": 0.5 - 0.5 * math.cos(math.pi * grown)}
        return 1.0 + (self.scale - 1.0) * shares[self.schedule]
