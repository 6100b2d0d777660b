"""One of `world` processes that share a batch of 8 images: `two_processes.py RANK WORLD FOLDER`.

Writes the losses and gradients of this process to FOLDER/RANK-of-WORLD.pt. Gradients are averaged over processes as
in data parallelism: the opponent's by DistributedDataParallel, those of the other terms here.
"""

from __future__ import annotations

from pathlib import Path

import conftest as tiny
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from processes import connected
from robustok_core.recipe.registry import Registry
from robustok_losses import plugin
from robustok_training.distributed import all_mean, world_size

HEADS = {"use": "adversarial", "start": 0.0, "heads": {"features": {"use": "tiny"}, "virtual_batch": 4}}


def build(table: dict) -> nn.Module:
    registry = Registry()
    registry.add_plugin(plugin, "robustok_losses")
    registry.add_plugin(tiny.TinyPlugin(), "tiny")
    loss = tiny.seeded(1, lambda: registry.build("loss", table))
    tiny.seeded(2, lambda: loss.prepare(tiny.make_tokenizer()))
    return loss


def averaged(value: Tensor, *parameters: nn.Parameter) -> list[Tensor]:
    return [all_mean(gradient) for gradient in torch.autograd.grad(value, parameters)]


def measure(rows: slice) -> dict[str, Tensor]:
    step = tiny.make_step(rows=rows)
    results = {}

    adversarial = build(HEADS)
    term = adversarial(step)
    results["adaptive weight"] = adversarial.logs()["adaptive_weight"]
    (results["adversarial gradient"],) = averaged(term, step.tokenizer.last_layer)

    opponent = adversarial.opponent
    wrapped = DistributedDataParallel(opponent) if world_size() > 1 else opponent
    for _ in range(2):
        wrapped(tiny.opponents_view(step)).backward()
    results |= {f"opponent {name}": parameter.grad for name, parameter in opponent.named_parameters()}
    results |= {f"opponent {name}": buffer for name, buffer in opponent.named_buffers()}
    adversarial(tiny.make_step(rows=rows)).backward()  # the term still works outside the wrapper
    results |= {f"afterwards {name}": parameter.grad for name, parameter in opponent.named_parameters()}

    semantic = build({"use": "semantic"})
    step = tiny.make_step(rows=rows)
    results["semantic"] = value = semantic(step)
    gradients = averaged(value, step.tokenizer.encoder.weight, semantic.projection.weight)
    results |= {f"semantic gradient {number}": gradient for number, gradient in enumerate(gradients)}
    return {name: value.detach() for name, value in results.items()}


def main(rank: int, world: int, folder: Path) -> None:
    share = 8 // world
    torch.save(measure(slice(rank * share, (rank + 1) * share)), folder / f"{rank}-of-{world}.pt")


if __name__ == "__main__":
    connected(main)
