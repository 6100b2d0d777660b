"""A robustok plugin from outside its tree: the perturbation `drop` and the metric `mae`."""

import torch
from attrs import field, frozen, validators
from robustok_core import Metric, Perturbation, Result, hookimpl

ROBUSTOK_HOOKS = 1  # optional: a robustok with other hooks then says so instead of failing somewhere


@frozen(kw_only=True)
class DropConfig:
    rate: float = field(
        default=0.1, validator=[validators.ge(0), validators.le(1)], metadata={"doc": "share of tokens"}
    )


class Drop(Perturbation):
    """Zeroes the vectors of a random share of the tokens."""

    Config = DropConfig

    def __init__(self, config):
        self.config = config

    def perturb(self, latents, quantizer, *, draws, progress):
        dropped = draws.uniform(latents.vectors.shape[1]) < self.config.rate  # (B, N)
        return latents.evolve(vectors=latents.vectors.masked_fill(dropped[..., None], 0.0)), dropped


@frozen(kw_only=True)
class MAEConfig:
    """No options."""


class MAE(Metric):
    """Mean absolute error of a pixel's value, in 8-bit levels."""

    Config = MAEConfig

    def __init__(self, config):
        self.sums = torch.zeros(2)

    def start(self, context):
        self.sums = torch.zeros(2, dtype=torch.float64, device=context.device)  # errors, values

    def update(self, step):
        errors = 127.5 * (step.images - step.batch.images).abs()  # [-1, 1] holds 255 levels
        self.sums += torch.stack([errors.double().sum(), self.sums.new_tensor(errors.numel())])

    def state(self):
        return {"sums": self.sums}

    def load_state(self, state):
        self.sums = state["sums"]

    def compute(self):
        return {"mae": Result((self.sums[0] / self.sums[1]).item(), higher_is_better=False)}


@hookimpl
def robustok_register(register):
    register("perturbation", "drop", Drop)
    register("metric", "mae", MAE)
