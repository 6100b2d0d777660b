"""Writes what `robustok plan` computes into the headers of the recipes at the paper's scale.

`python docs/recipe_costs.py` rewrites all, in a quarter of an hour, and refuses those that do not fit;
`python docs/recipe_costs.py rar_b` those that it names.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from robustok_commands.plan import byte_text, scaled
from robustok_core import Recipe
from robustok_core.runs.assumed import Launch
from robustok_core.runs.costing import StageCost, plan_costs
from robustok_core.values.numbers import number_text
from robustok_toolkit.device_table import DEVICES

FOLDER = Path(__file__).parent.parent / "recipes" / "imagenet256"
GPUS, DEVICE, UTILISATION = 8, "h100", 0.35
_BLOCK = re.compile(r"^# Cost: .*\n(?:#  .*\n)*", re.MULTILINE)
_PREFIX = "# Cost:     "


def costs_of(name: str) -> Sequence[StageCost]:
    """What the stages of a recipe will take, without its data."""
    return plan_costs(Recipe.load(f"imagenet256/{name}"), launch=Launch(processes=GPUS), without_data=True)


def too_large(stages: Sequence[StageCost]) -> list[str]:
    """The stages whose micro-batches do not fit."""
    memories = {stage.name: stage.cost.memory for stage in stages if stage.cost is not None and stage.cost.memory}
    usable = DEVICES[DEVICE].usable_bytes
    return [name for name, memory in memories.items() if not memory.fits(usable)]


def cost_text(stages: Sequence[StageCost]) -> str:
    """What a header says of them."""
    device = DEVICES[DEVICE]
    hours = sum(device.hours(stage.cost, UTILISATION) for stage in stages if stage.cost is not None)
    text = "; ".join(map(_stage_text, stages))
    return f"{text}. {number_text(hours, 2)} GPU-hours of an H100 at {UTILISATION:.0%} of its peak (`robustok plan`)."


def _stage_text(stage: StageCost) -> str:
    cost = stage.cost
    if cost is None:
        return f"{stage.name} not known"
    text = f"{stage.name} {scaled(sum(work.total for work in cost.work))}FLOP"
    if not cost.steps or cost.memory is None:
        return text
    each = sum(work.images for work in cost.work) / cost.steps
    fixed = byte_text(sum(cost.memory.fixed.values()))
    text += f" for {scaled(cost.trained)} parameters in {cost.steps:,} steps of {each:,.0f} images"
    return f"{text}, {byte_text(cost.memory.per_image)} an image beside {fixed} on each of {GPUS} GPUs"


def with_cost(recipe: str, text: str) -> str:
    """A recipe's text with another sentence of its cost."""
    lines = textwrap.wrap(text, 120 - len(_PREFIX), break_on_hyphens=False, break_long_words=False)
    block = "".join(f"{'#'.ljust(len(_PREFIX)) if number else _PREFIX}{line}\n" for number, line in enumerate(lines))
    return _BLOCK.sub(lambda _: block, recipe, count=1)


def main(names: Sequence[str]) -> None:
    """Rewrites the headers."""
    for name in names or sorted(file.stem for file in FOLDER.glob("*.toml")):
        file = FOLDER / f"{name}.toml"
        stages = costs_of(name)
        if large := too_large(stages):
            sys.exit(f"{name}: {large[0]} does not fit {GPUS} GPUs of the kind {DEVICE}: raise its accumulation")
        file.write_text(with_cost(file.read_text(), cost_text(stages)))


if __name__ == "__main__":
    main(sys.argv[1:])
