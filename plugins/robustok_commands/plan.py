"""`robustok plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from robustok_core.cli.completion import RECIPE
from robustok_core.cli.ranges import FiniteRange
from robustok_core.values.numbers import number_text
from robustok_core.values.printable import printable
from robustok_core.values.terminal import echo, echo_json, make_console, print_table

if TYPE_CHECKING:
    from robustok_core.kinds.cost import Cost, Memory
    from robustok_core.runs.costing import StageCost
    from robustok_toolkit.device_table import Device

_UNITS = ("", "k", "M", "G", "T", "P", "E", "Z")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command()
@click.argument("recipe", type=RECIPE)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. perturbation.beta=0.5.")
@click.option("--preset", "presets", multiple=True, metavar="RECIPE", help="Lay a recipe fragment over the recipe.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Number of GPUs.")
@click.option(
    "--fsdp", is_flag=True, help="Divide the weights among the GPUs (FSDP) instead of copying them to each (DDP)."
)
@click.option("--device", default="h100", show_default=True, metavar="NAME", help="The GPU, e.g. a100, h200, rtx4090.")
@click.option(
    "--utilisation",
    type=FiniteRange(0.0, 1.0, min_open=True),
    default=0.35,
    show_default=True,
    help="The share of the device's peak FLOP/s that is reached, for the time.",
)
@click.option("--without-data", is_flag=True, help="Do not open the data set where the recipe says what it holds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with exact numbers.")
def plan(
    recipe: str,
    changes: tuple[str, ...],
    presets: tuple[str, ...],
    gpus: int,
    fsdp: bool,
    device: str,
    utilisation: float,
    without_data: bool,
    as_json: bool,
) -> None:
    """Say what a RECIPE will take before it runs: parameters, operations, memory, disk and GPU-hours of each stage.

    Each training's own step is measured on torch's meta device, without weights, images or a GPU, so any machine can
    plan for any other. Data and files that are not here are taken as the recipe's options `expect` say.

    Example: `robustok plan imagenet256/rar_b --gpus 8 --device a100`.
    """
    from robustok_core.runs.assumed import Launch
    from robustok_core.runs.costing import plan_costs
    from robustok_core.runs.opening import open_recipe
    from robustok_toolkit.device_table import device_named

    if fsdp and gpus == 1:
        raise click.UsageError("--fsdp divides the weights among several GPUs: give --gpus, too")
    target, assumed = device_named(device), list[str]()
    opened, _ = open_recipe(recipe, overrides=changes, presets=presets)
    launch = Launch(processes=gpus, divides_weights=fsdp)
    stages = plan_costs(opened, launch=launch, without_data=without_data, announce=assumed.append)
    if as_json:
        told = {
            "recipe": recipe,
            "device": device,
            "gpus": gpus,
            "fsdp": fsdp,
            "utilisation": utilisation,
            "assumed": assumed,
        }
        told["stages"] = [_as_table(stage, target, utilisation) for stage in stages]
        echo_json(told)
        return
    _print(stages, target, utilisation, gpus, divided=fsdp)
    echo(
        f"time: at {utilisation:.0%} of {device}'s peak ({target.bf16 / 1e12:g} TFLOP/s in bf16, "
        f"{target.float32 / 1e12:g} in float32 without TF32), without waiting for data"
    )
    for line in assumed:
        echo(printable(line))


def _print(stages: Sequence[StageCost], device: Device, utilisation: float, gpus: int, *, divided: bool) -> None:
    console = make_console()
    known = [(stage.name, stage.cost) for stage in stages if stage.cost is not None]
    headers = ["stage", "computes", "in", "images", "FLOP an image", "FLOP", "GPU-hours"]
    print_table(console, headers, [row for stage in stages for row in _work_rows(stage, device, utilisation)])
    hours = sum(device.hours(cost, utilisation) for _, cost in known)
    echo(f"{_hours(hours)} GPU-hours in all: {_hours(hours / gpus)} hours on {gpus}")
    echo("")
    headers = ["parameters", "trained", "frozen", "steps"]
    rows = [(name, scaled(cost.trained), scaled(cost.frozen), f"{cost.steps:,}") for name, cost in known]
    print_table(console, headers, rows)
    if memories := [(name, cost.memory) for name, cost in known if cost.memory is not None]:
        echo("")
        of_gpu = "memory of a GPU, with FSDP" if divided else "memory of a GPU"
        headers = [of_gpu, "fixed", "an image", "at once", "in total", "at once at most"]
        print_table(console, headers, [_memory_row(name, memory, device) for name, memory in memories])
        for name, memory in memories:
            fixed = ", ".join(f"{what} {byte_text(size)}" for what, size in memory.fixed.items())
            echo(f"{printable(name)}, fixed: {printable(fixed)}")
        usable = f"{device.usable_bytes / 2**30:.0f} of {device.gib:g} GiB"
        echo(f"at once: images of one GPU in a micro-batch; at most: so many as fit into {usable}")
        for line in _too_large(stages, device, usable, divided=divided):
            echo(line)
    echo("")
    sizes = [(name, what, byte_text(size)) for name, cost in known for what, size in cost.disk.items()]
    print_table(console, ["on disk", "", "at most"], sizes)
    echo("")
    for note in dict.fromkeys(note for _, cost in known for note in cost.notes):
        names = ", ".join(name for name, cost in known if note in cost.notes)
        echo(f"{printable(names)}: {printable(note)}")


def _too_large(stages: Sequence[StageCost], device: Device, usable: str, *, divided: bool) -> Iterator[str]:
    """A line for each stage that does not fit, with what to do."""
    from robustok_core.runs.memory import what_fits

    for stage in stages:
        memory = None if stage.cost is None else stage.cost.memory
        if memory is not None and not memory.fits(device.usable_bytes):
            fits = what_fits(memory, device.usable_bytes, divided=divided, config=stage.config)
            yield f"does not fit: {printable(stage.name)}, {memory.images} images at once in {usable}; {fits}"


def _work_rows(stage: StageCost, device: Device, utilisation: float) -> Iterator[list[str]]:
    name = stage.name
    if stage.cost is None:
        yield [name, "not known", *[""] * 5]
        return
    for work in stage.cost.work:
        hours = _hours(device.seconds(work, utilisation) / 3600)
        precision = "bf16" if work.bf16 else "fp32"
        yield [name, work.name, precision, scaled(work.images), scaled(work.flops), scaled(work.total), hours]
        name = ""
    if not stage.cost.work:
        yield [name, "nothing", *[""] * 5]


def _memory_row(name: str, memory: Memory, device: Device) -> list[str]:
    return [
        name,
        byte_text(sum(memory.fixed.values())),
        byte_text(memory.per_image),
        str(memory.images),
        byte_text(memory.total),
        f"{memory.most_images(device.usable_bytes):,}",
    ]


def _as_table(stage: StageCost, device: Device, utilisation: float) -> dict[str, Any]:
    """What `--json` prints of a stage; all but its name is None where that is not known."""
    return {"name": stage.name, "cost": None if stage.cost is None else _cost_table(stage.cost, device, utilisation)}


def _cost_table(cost: Cost, device: Device, utilisation: float) -> dict[str, Any]:
    memory = cost.memory
    return {
        "parameters": {"trained": cost.trained, "frozen": cost.frozen},
        "steps": cost.steps,
        "work": [
            {
                "name": work.name,
                "images": work.images,
                "flop_per_image": work.flops,
                "flop": work.total,
                "precision": "bf16" if work.bf16 else "no",
                "gpu_hours": device.seconds(work, utilisation) / 3600,
            }
            for work in cost.work
        ],
        "gpu_hours": device.hours(cost, utilisation),
        "memory": memory
        and {
            "fixed_bytes": dict(memory.fixed),
            "bytes_per_image": memory.per_image,
            "images": memory.images,
            "bytes": memory.total,
            "most_images": memory.most_images(device.usable_bytes),
        },
        "disk_bytes": dict(cost.disk),
        "notes": list(cost.notes),
    }


def scaled(value: float, units: Sequence[str] = _UNITS, step: int = 1000) -> str:
    """A number with three digits and a prefix: "172 M", "0"."""
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / step, power + 1
    return f"{number_text(value, 3)} {units[power]}".rstrip()


def byte_text(size: float) -> str:
    """A number of bytes: "9.18 GiB"."""
    return scaled(size, _BYTES, 1024)


def _hours(hours: float) -> str:
    return number_text(hours, 2) if hours >= 0.01 else "< 0.01"
