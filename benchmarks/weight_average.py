"""Compares updates of a running average of weights, torch's and ours: `python benchmarks/weight_average.py`.

With small tensors, the cost is that of starting an operation for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import harness
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustok_training.weight_average import WeightAverage


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.Parser(__doc__, {"tensors": 600, "width": 64}, rounds=20, quick={"tensors": 4, "width": 2})
    options = parser.options(arguments)
    model = nn.ModuleList(nn.Linear(options.width, options.width) for _ in range(options.tensors // 2))
    model.to(options.device)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    one_by_one = AveragedModel(model, avg_fn=_ema, use_buffers=True)
    ours = WeightAverage(model, 0.99)
    ways = {
        "torch, one by one": lambda: one_by_one.update_parameters(model),
        "torch, all at once": lambda: theirs.update_parameters(model),
        "ours": ours.update,
    }
    report = harness.Report(options)
    report.compared("update of the average", harness.compare(ways, rounds=options.rounds, warm_up=2))
    return report.finish()


def _ema(average: torch.Tensor, new: torch.Tensor, _: Any) -> torch.Tensor:
    return torch.lerp(average, new, 0.01)


if __name__ == "__main__":
    main()
