"""One of `world` processes that train toy modules on 8 rows: `parallel_two_processes.py RANK WORLD FOLDER`.

Writes the weights of each training, what it said, and its error to FOLDER/RANK-of-WORLD.pt.
"""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from processes import connected
from robustok_core import RunError
from robustok_training import OptimizerConfig, TrainedModule
from robustok_training.prepared_module import PreparedModule

#: The modules and optimisers of all trainings.
HELD: list[weakref.ref] = []
ROWS, STEPS = torch.arange(8.0 * 3).reshape(8, 3) / 10, 4


class Step(nn.Module):
    """Of its three parameters, `late` is used only in the steps that are named."""

    def __init__(self, late_in: set[int]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)
        self.late = nn.Parameter(torch.ones(()))
        self.late_in, self.number = late_in, -1

    def forward(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor], None]:
        hidden = self.first(rows).tanh()
        return self.second(hidden * self.late if self.number in self.late_in else hidden).square().mean(), {}, None


def train(accelerator: Accelerator, rank: int, world: int, late_in: set[int], parts: int = 1) -> dict[str, object]:
    torch.manual_seed(rank)  # the weights of the first process count
    module, said = Step(late_in), list[str]()
    torch.manual_seed(0)
    if world == 1:
        module = Step(late_in)
    optimizer = OptimizerConfig(learning_rate=0.1, schedule="constant")
    prepared = PreparedModule(TrainedModule(name="toy", module=module, optimizer=optimizer), accelerator, said.append)
    found: dict[str, object] = {}
    try:
        for module.number in range(STEPS):
            for part in range(parts):
                own = ROWS.chunk(parts)[part].chunk(world)[rank]
                with prepared.averaging_gradients(last=part == parts - 1):
                    accelerator.backward(prepared.forward(own)[0] / parts)
            prepared.step(0.0)
    except RunError as error:
        found["error"] = str(error)
    HELD.extend(map(weakref.ref, (module, prepared.optimizer)))
    prepared.release()
    ddp = None if prepared._parallel is None else prepared._parallel._ddp
    searches = None if ddp is None else ddp.find_unused_parameters
    return found | {"weights": module.state_dict(), "said": said, "searches": searches}


def main(rank: int, world: int, folder: Path) -> None:
    if world > 1:
        place = {"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= place
    accelerator = Accelerator(cpu=True)
    everything = set(range(STEPS))
    results = {
        "always": train(accelerator, rank, world, everything),
        "accumulated": train(accelerator, rank, world, everything, parts=2),
        "never": train(accelerator, rank, world, set()),
        "later": train(accelerator, rank, world, {2, 3}),
        "no longer": train(accelerator, rank, world, {0, 1}) if world > 1 else {},
    }
    gc.collect()
    results["still held"] = sum(reference() is not None for reference in HELD)
    torch.save(results, folder / f"{rank}-of-{world}.pt")


if __name__ == "__main__":
    connected(main)
