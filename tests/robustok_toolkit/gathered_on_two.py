"""One of `world` processes that gather rows of several types, and then many: `gathered_on_two.py RANK WORLD FOLDER`.

Writes what they gathered, the largest piece that was exchanged, and how much memory the many rows took, as a multiple
of their size, to FOLDER/RANK-of-WORLD.pt.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from processes import connected
from robustok_toolkit.image_features import gather_shares

DTYPES = (torch.uint8, torch.bool, torch.int16, torch.int64)
DTYPES += (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MANY = 3 * 2**26


def held(what: str) -> int:
    """The bytes of memory that this process holds now, or held at its peak."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[what].split()[0])


def main(rank: int, world: int, folder: Path) -> None:
    results, sizes = {}, {1: [7], 2: [5, 2]}[world]
    first = sum(sizes[:rank])
    for dtype in DTYPES:
        rows = (torch.arange(7 * 6) % 5 - 1).reshape(7, 2, 3).transpose(1, 2).to(dtype)
        results[str(dtype)] = gather_shares(rows[first : first + sizes[rank]], sizes)
    results["none of one process"] = gather_shares(torch.ones(2 if rank == 0 else 0, 3), [2, 0][:world])
    if world > 1:
        pieces, broadcast = [], dist.broadcast
        dist.broadcast = lambda tensor, src: (pieces.append(tensor.nbytes), broadcast(tensor, src=src))
        own = torch.full((MANY // 3 // world, 3), rank, dtype=torch.uint8)
        before = held("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        many = gather_shares(own, [len(own)] * world)
        taken = held("VmHWM") - before
        equal = all(bool((share == number).all()) for number, share in enumerate(many.chunk(world)))
        results |= {"equal": equal, "largest piece": max(pieces), "memory": taken / MANY}
    torch.save(results, folder / f"{rank}-of-{world}.pt")


connected(main)
