"""A perturbation that drops tokens."""

import attrs
from attrs import field, frozen, validators
from robustok_core import Perturbation


@frozen(kw_only=True)
class DropConfig:
    rate: float = field(default=0.1, validator=[validators.ge(0), validators.le(1)], metadata={"doc": "token share"})


class Drop(Perturbation):
    """Zeroes the vectors of a random share of the tokens."""

    Config = DropConfig

    def __init__(self, config):
        self.config = config

    def perturb(self, latents, quantizer, *, draws, progress):
        dropped = draws.uniform(latents.vectors.shape[1]) < self.config.rate  # (B, N)
        return latents.evolve(vectors=latents.vectors.masked_fill(dropped[..., None], 0.0)), dropped

    @classmethod
    def of_strength(cls, config, *, alpha, **others):  # lets pFID use this perturbation
        return attrs.evolve(config, rate=alpha)
