"""One of `world` processes that share 4 rows and a loss over all of them: `two_processes.py RANK WORLD FOLDER`.

Writes what each function of `distributed` gives on this process to FOLDER/RANK-of-WORLD.pt.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from processes import connected
from robustok_core import RunError
from robustok_core.runs.interrupt import StopRequest
from robustok_core.runs.main_process import from_main
from robustok_core.values import devices
from robustok_training import distributed
from robustok_training.finite import check_modules
from robustok_training.interrupt import StopAgreement, asked_anywhere


def refusal(norm: nn.Module) -> str | None:
    try:
        check_modules({"norm": norm}, step=3, stage="fit")
    except RunError as error:
        return str(error)
    return None


def main(rank: int, world: int, folder: Path) -> None:
    rows = torch.arange(4.0 * 3).reshape(4, 3)
    own = rows.chunk(world)[rank].clone().requires_grad_()
    gathered = distributed.all_gather_rows(own)
    (gradient,) = torch.autograd.grad((gathered.prod(0) ** 2).sum(), own)
    parts = own.detach().sum(0)
    stop = StopRequest()
    before = asked_anywhere(stop, torch.device("cpu"))
    stop.asked = rank == world - 1  # only the last process is asked
    norm = nn.BatchNorm1d(2)
    norm.running_var[0] = float("nan") if rank == world - 1 else 1.0  # the last process alone has seen such a batch
    results = {
        "rank": distributed.rank(),
        "world": distributed.world_size(),
        "sum": distributed.all_sum(parts),
        "mean": distributed.all_mean(parts),
        "unchanged": parts,
        "gathered": gathered.detach(),
        "gradient": gradient,
        "not finite": refusal(norm),
        "of the main process": from_main(lambda: {"found by": rank}),
        "stops": (before, asked_anywhere(stop, torch.device("cpu"))),
    }
    devices.is_queued = lambda device: True
    agreement, late = StopAgreement(torch.device("cpu")), StopRequest()
    for step in range(3):
        late.asked = rank == world - 1 and step == 1
        results[f"stops after step {step}"] = agreement.asked(late)
    distributed.barrier()
    torch.save(results, folder / f"{rank}-of-{world}.pt")


if __name__ == "__main__":
    connected(main)
