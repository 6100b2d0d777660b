"""A loss that compares edges."""

from attrs import field, frozen
from robustok_core import Loss


@frozen(kw_only=True)
class EdgesConfig:
    weight: float = field(default=1.0, metadata={"doc": "factor of the term"})


class Edges(Loss):
    """L1 between the differences of neighbouring pixels."""

    Config = EdgesConfig
    compares_images = True

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, step):
        error = step.images - step.batch.images  # (B, 3, H, W)
        return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
