"""Metrics that average one number per image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.values.full_precision import sums_device
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec


class MeanOfImages(Metric):
    """The mean of `per_image`, summed in float64.

    Attributes:
        name: name of the only result. higher_is_better: None if neither direction is better.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool | None]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def per_image(self, step: Evaluation) -> Tensor:
        """(B,) one number per image."""

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [self.name]

    def start(self, context: EvaluationContext) -> None:
        device = sums_device(context.device)
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)

    def update(self, step: Evaluation) -> None:
        values = self.per_image(step)
        self.total += values.to(self.total.device, torch.float64).sum()
        self.count += len(values)

    def state(self) -> Mapping[str, Tensor]:
        return {"total": self.total, "count": self.count}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.total, self.count = state["total"], state["count"]

    def compute(self) -> Mapping[str, Result]:
        if self.count.item() == 0:
            raise RunError(f"{self.name} is a mean over images, but there were no images")
        # not `num_images`, because the value does not depend on how many they are
        about = {"num_images": int(self.count.item())}
        value = (self.total / self.count).item()
        return {self.name: Result(value, higher_is_better=self.higher_is_better, details=about)}
