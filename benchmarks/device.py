"""Measures samplers and trainings at the paper's sizes on one device, each beside the plain way: in < 8 minutes.

    python benchmarks/device.py --json device.json --markdown device.md
    python benchmarks/device.py --only "RAR-B sampling" "VQ-16 training"

Weights are random and images are noise, which cost what trained weights and photographs cost; nothing is downloaded. On
a CPU, sizes are tiny and only show that it runs. Samplers take turns; a training is a run of a recipe for a few steps,
and a round is `--steps` of them, after as many that do not count. Utilisation is of the device's peak in bfloat16,
where `robustok plan` knows the device, with operations counted as there.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import harness
import sampling as released  # beside this file
import torch
from attrs import define, field, frozen
from torch import Tensor

from robustok_core import Dataset, Recipe, hookimpl, load_registry, run
from robustok_core.recipe.registry import Registry
from robustok_core.runs.costing import plan_costs
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_generators.autoregressive import Autoregressive, guided
from robustok_generators.flow_sampling import FlowSampling
from robustok_generators.flow_transformer import FlowTransformer, FlowTransformerConfig
from robustok_generators.llamagen_gpt import LlamaGenGPT, LlamaGenGPTConfig
from robustok_generators.rar import RAR, RARConfig
from robustok_generators.token_sampling import TokenSampling, choose
from robustok_stages.costs import sampling as sampling_flops
from robustok_toolkit.device_table import DEVICES
from robustok_toolkit.generating import ImagesInMemory

Table = dict[str, Any]
#: The ways of a sampler besides the plain one: its option `execution`.
SAMPLERS = {"ours": "eager", "ours, graph": "graph", "ours, compiled": "compile"}
#: The ways of a training: changes of the recipe.
TRAININGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"compile": "off", "channels_last": "off", "tf32": False},
    "ours": {},
    "ours, compiled": {"compile": "auto"},  # on a CPU, the same as ours
}
TINY = {"width": 16, "depth": 1, "num_heads": 2}
IMAGENET = "imagenet256"


@frozen(kw_only=True)
class SyntheticConfig:
    """Options of the data set."""

    image_size: int = field(metadata={"doc": "height and width"})
    count: int = field(metadata={"doc": "images to train on"})


class Synthetic(Dataset):
    """Noise, in memory."""

    Config = SyntheticConfig

    def __init__(self, config: SyntheticConfig) -> None:
        self.image_size, self.num_classes, self.class_names = config.image_size, 10, [*"0123456789"]
        self.train, self.validation = (self._split(count, config.image_size) for count in (config.count, 8))

    @staticmethod
    def _split(count: int, size: int) -> ImagesInMemory:
        numbers = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (count, 3, size, size), generator=numbers, dtype=torch.uint8)
        return ImagesInMemory(pixels, torch.arange(count) % 10, f"noise {count} {size}")


@define(eq=False)
class Stopwatch:
    """Registers the data set, and notes when a stage has logged a line.

    Attributes:
        stage: to watch. times: of its lines. peak_bytes: of the device's memory since the first.
    """

    stage: str
    times: list[float] = field(factory=list)
    peak_bytes: int = 0

    @hookimpl
    def robustok_register(self, register: Any) -> None:
        register("dataset", "synthetic", Synthetic)

    @hookimpl
    def robustok_step_logged(self, stage: str) -> None:
        if stage != self.stage:
            return
        self.times.append(harness.timer())  # it waits for the device
        if torch.cuda.is_available():
            if len(self.times) == 1:
                torch.cuda.reset_peak_memory_stats()
            self.peak_bytes = torch.cuda.max_memory_allocated()


@frozen(kw_only=True)
class Rated:
    """Columns of a way: how fast the device computes, and the share of its peak, if that is known."""

    flops: float
    rates: Mapping[str, harness.Spread]
    device: str

    def __call__(self, way: str) -> dict[str, str]:
        speed, peak = self.flops * self.rates[way].median, peak_flops(self.device)
        return {"TFLOP/s": harness.number(speed / 1e12), "MFU": f"{speed / peak:.0%}" if peak else ""}


def peak_flops(device: str) -> float | None:
    """The peak in bfloat16 of the CUDA device; None if `robustok plan` does not know it."""
    if torch.device(device).type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).lower().replace("-", " ").replace("rtx ", "rtx").replace("gb", "gb ")
    known = [name for name in DEVICES if all(part in words.split() for part in name.split("-"))]
    return DEVICES[max(known, key=len)].bf16 if known else None


# --- sampling -------------------------------------------------------------------------------------


def plainly(model: LlamaGenGPT, labels: Tensor, uniform: Tensor) -> Tensor:
    """(B, N) codes, with keys and values that grow by concatenation."""
    decoding = model.decoding(torch.cat([labels, torch.full_like(labels, model.num_classes)]))
    decoding.caches = [released.GrowingCache() for _ in model.layers]
    logits, codes = decoding.start(), list[Tensor]()
    for step in range(model.space.num_tokens):
        weighted = guided(logits.float(), released.GUIDANCE, step / model.space.num_tokens)
        codes.append(choose(weighted, uniform[:, step], released.SAMPLING))
        if len(codes) < model.space.num_tokens:
            logits = decoding.advance(codes[-1].repeat(2))
    return torch.stack(codes, dim=1)


def on_device(build: Callable[[], Any], device: str) -> Any:
    """A model with random weights, none of them zero, as in training zero weights would be no more."""
    torch.manual_seed(0)
    with torch.device(device):
        model = build().eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02)
    return model


def autoregressive(report: harness.Report, what: str, build: Callable[[], Autoregressive], plain: Any) -> None:
    """Samplers of codes."""
    options = report.options
    model = on_device(build, options.device)
    labels = torch.arange(options.batch, device=options.device) * 7 % 1000
    uniform = Draws.for_rows(1, options.batch, options.device).uniform(model.space.num_tokens)
    ways = {"plain": partial(plain, model, labels, uniform)}
    for name, execution in samplers(options).items():
        chosen = TokenSampling(temperature=1.02, execution=execution)
        ways[name] = partial(released.ours, model, labels, uniform, chosen)
    sampled(report, what, ways, sampling_flops(model, released.GUIDANCE, TokenSampling(), "bf16") or 0.0)


def flow(report: harness.Report, what: str, *, tiny: bool) -> None:
    """Samplers of vectors: 10 guided Euler steps; plain is a pass with classes and one without them for each."""
    options = report.options
    space = LatentSpace(kind="continuous", num_tokens=8 if tiny else 128, width=32)
    config = FlowTransformerConfig(**TINY) if tiny else FlowTransformerConfig(preset="XL")
    model = on_device(lambda: FlowTransformer(config, space, 1000), options.device)
    labels = torch.arange(options.batch, device=options.device) * 7 % 1000
    draws, guidance, steps = Draws.for_rows(1, options.batch, options.device), Guidance(scale=1.75), 10
    null, noise = torch.full_like(labels, 1000), draws.child("noise").normal(space.num_tokens, space.width)

    def plain() -> Tensor:
        x = noise
        for step in range(steps):
            times = torch.full((len(x),), 1.0 - step / steps, device=x.device)
            conditional, unconditional = (model(x, times, classes).float() for classes in (labels, null))
            x = x - torch.lerp(unconditional, conditional, guidance.scale) / steps
        return x

    ways: dict[str, Callable[[], Any]] = {"plain": plain}
    for name, execution in samplers(options).items():
        chosen = FlowSampling(steps=steps, execution=execution)
        ways[name] = partial(model.sample, labels, draws, guidance=guidance, sampling=chosen)
    sampled(report, what, ways, sampling_flops(model, guidance, FlowSampling(steps=steps), "bf16") or 0.0)


def samplers(options: argparse.Namespace) -> dict[str, Any]:
    """The ways of a sampler besides the plain one; compiling takes long, and nothing tiny needs it."""
    return {name: how for name, how in SAMPLERS.items() if how != "compile" or not options.tiny}


def sampled(report: harness.Report, what: str, ways: Mapping[str, Callable[[], Any]], flops: float) -> None:
    options = report.options
    with torch.no_grad(), harness.autocast(options.device, "bf16"):
        found = harness.compare(ways, rounds=options.rounds, warm_up=2)
    rated = Rated(flops=flops, rates=found.rates(options.batch), device=options.device)
    report.compared(what, found, amount=options.batch, unit="images", columns=rated)


# --- training -------------------------------------------------------------------------------------


def recipe_of(name: str) -> Table:
    """The table of a bundled recipe, to change."""
    return copy.deepcopy(Recipe.load(f"{IMAGENET}/{name}").source.table)


def stage_of(recipe: Table, use: str) -> Table:
    return next(stage for stage in recipe["stage"] if stage["use"] == use)


def vit_recipe(folder: Path, *, tiny: bool) -> Table:
    """The RobusTok tokenizer with all its losses from the first step on."""
    recipe = recipe_of("robustok_tokenizer")
    recipe["tokenizer"] |= {"init": "random", **({**TINY, "image_size": 32, "num_latent_tokens": 4} if tiny else {})}
    stage = stage_of(recipe, "train_tokenizer")
    losses = stage["losses"]
    losses["perceptual"]["weights"] = vgg_weights(folder)
    losses["adversarial"] |= {"start": 0.0, "heads": {"features": {"use": "dino", "weights": "random"}}}
    losses["semantic"]["teacher"] = {"use": "dinov2", "weights": "random"}
    if tiny:
        del losses["adversarial"], losses["semantic"]  # their networks have only one size
        recipe["perturbation"] |= {"beta": 0.5, "delta": 4}
    return {name: recipe[name] for name in ("tokenizer", "perturbation")} | {"stage": [stage]}


def vq_recipe(folder: Path, *, tiny: bool) -> Table:
    """LlamaGen's VQ-16 with its losses from the first step on."""
    tokenizer = recipe_of("evaluate_llamagen")["load"]["tokenizer"]["expect"]
    if tiny:
        tokenizer |= {"image_size": 32, "channels": 32, "channel_multipliers": [1, 1], "num_res_blocks": 1}
    losses = {
        "reconstruction": {"use": "reconstruction", "norm": "l2"},
        "perceptual": {"use": "perceptual", "network": "lpips_vgg", "weights": vgg_weights(folder)},
        "adversarial": {"use": "adversarial", "start": 0.0, "patch": {}},
    }
    return {"tokenizer": tokenizer, "stage": [{"use": "train_tokenizer", "losses": losses, "ema_decay": 0.9999}]}


def flow_recipe(_: Path, *, tiny: bool) -> Table:
    """MAETok's SiT-XL, on the latents of a tokenizer that is small, which the training does not notice."""
    recipe = recipe_of("maetok_diffusion_xl")
    generator = {"use": "flow_transformer", **TINY} if tiny else recipe["generator"]
    tokenizer = {"use": "mae_tok", **TINY, "image_size": 32, "patch_size": 8, "num_latent_tokens": 8 if tiny else 128}
    stages = [
        {"use": "train_tokenizer", "epochs": 1, "batch_size": 8},
        {"use": "tokenize"},
        stage_of(recipe, "train_generator"),
    ]
    return {"tokenizer": tokenizer, "generator": generator, "stage": stages}


def vgg_weights(folder: Path) -> str:
    """A file with random weights of VGG-16's convolutions."""
    from torchvision.models import vgg16

    file = folder / "vgg16.pth"
    if not file.exists():
        with torch.device("meta"):
            network = vgg16()
        shapes = {name: value.shape for name, value in network.features.state_dict(prefix="features.").items()}
        torch.save({name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}, file)
    return str(file)


def training(
    report: harness.Report, what: str, recipe_in: Callable[..., Table], use: str, batch: int, *, tiny: bool
) -> None:
    """The last stage of a recipe, for a few steps."""
    options = report.options
    seconds, peaks, flops = dict[str, list[float]](), dict[str, int](), 0.0
    for name, changes in TRAININGS.items():
        with tempfile.TemporaryDirectory() as folder:
            table = recipe_in(Path(folder), tiny=tiny)
            complete(table, use, batch, options)
            table["run"] |= changes
            stopwatch, registry = Stopwatch(use), load_registry()
            registry.add_plugin(stopwatch, "stopwatch")
            flops = flops or flops_of(table, registry, use)
            run(Recipe.from_table(table), registry=registry, out=Path(folder))
        times = stopwatch.times
        seconds[name] = [after - before for before, after in itertools.pairwise(times)]
        if stopwatch.peak_bytes:
            peaks[name] = stopwatch.peak_bytes
    found = harness.Comparison(seconds=seconds, processor_seconds=seconds, peak_bytes=peaks, results={})
    amount = options.steps * batch
    rated = Rated(flops=flops, rates=found.rates(amount), device=options.device)
    report.compared(what, found, amount=amount, unit="images", columns=rated)


def complete(table: Table, use: str, batch: int, options: argparse.Namespace) -> None:
    """Adds the data, the length of the training and what else a recipe needs."""
    size = table["tokenizer"].get("image_size", 256)
    table["run"] = {"name": "device", "precision": "bf16", "report": False}
    table["data"] = {"use": "synthetic", "image_size": size, "count": 4 * batch}
    stage = stage_of(table, use)
    steps = options.steps * (1 + options.rounds)
    stage |= {"batch_size": batch, "epochs": steps / 4, "log_every": options.steps, "workers": 0}
    stage["checkpoint_every"] = steps  # none before the end: it would be timed, and adds a line to the log


def flops_of(table: Table, registry: Registry, use: str) -> float:
    """Operations of a training step for an image."""
    costs = plan_costs(Recipe.from_table(copy.deepcopy(table)), registry=registry)
    (cost,) = (stage.cost for stage in costs if stage.name == use)
    return 0.0 if cost is None else sum(work.flops for work in cost.work if work.name == "training")


# --- all of it ------------------------------------------------------------------------------------


def cases(options: argparse.Namespace) -> dict[str, Callable[[harness.Report, str], None]]:
    """What to measure, by name."""
    tiny = options.tiny
    codes = LatentSpace(kind="discrete", num_tokens=16, width=8, codebook_size=32, grid=(4, 4))
    rar_codes = LatentSpace(kind="discrete", num_tokens=256, width=64, codebook_size=4096)
    llamagen_codes = LatentSpace(kind="discrete", num_tokens=256, width=8, codebook_size=16384, grid=(16, 16))
    rar = partial(RAR, RARConfig(**TINY), codes) if tiny else partial(RAR, RARConfig(preset="B"), rar_codes)
    gpt = partial(LlamaGenGPT, LlamaGenGPTConfig(**TINY), codes)
    if not tiny:
        gpt = partial(LlamaGenGPT, LlamaGenGPTConfig(preset="B"), llamagen_codes)

    def trains(recipe: Callable[..., Table], use: str, batch: int) -> Any:
        return partial(training, recipe_in=recipe, use=use, batch=2 if tiny else batch, tiny=tiny)

    return {
        "RAR-B sampling": partial(autoregressive, build=lambda: rar(1000), plain=released.plain),
        "LlamaGen-B sampling": partial(autoregressive, build=lambda: gpt(1000), plain=plainly),
        "flow-XL sampling": partial(flow, tiny=tiny),
        "flow-XL training": trains(flow_recipe, "train_generator", 128),
        "VQ-16 training": trains(vq_recipe, "train_tokenizer", 32),
        "ViT-B tokenizer training, all losses": trains(vit_recipe, "train_tokenizer", 64),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    quick = {"batch": 2, "steps": 1, "device": "cpu"}
    parser = harness.Parser(__doc__, {"batch": 128, "steps": 5}, quick=quick, rounds=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="what to measure; default: everything")
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.options(arguments)
    options.tiny = options.quick or torch.device(options.device).type == "cpu"
    if options.tiny:
        options.batch, options.steps = min(options.batch, 2), min(options.steps, 2)
    known, report = cases(options), harness.Report(options)
    if unknown := set(options.only or ()) - known.keys():
        parser.error(f"--only: there is no {', '.join(unknown)}; known: {', '.join(known)}")
    for what in options.only or known:
        known[what](report, what)
        print(f"{what}: done", flush=True)
    return report.finish()


if __name__ == "__main__":
    main()
