"""Importers read what they export, whatever the sizes: options follow from the weights, not from a published size.

Every importer is tried with networks of random sizes, none of them a published one: odd depths, heads, patches and
classes, codebooks that are no power of two, decoders unlike their encoders. The weights are in one of the containers
that published files have.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from published import export, import_file, noted_words
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.components import load_component, save_component
from robustok_core.values.latents import Latents, LatentSpace

REGISTRY = load_registry()
#: A component's kind, recipe table and further arguments, and the options that do not follow from its weights.
Case = tuple[str, dict[str, Any], tuple[Any, ...], dict[str, Any]]


def tokenizer(table: Mapping[str, Any], **options: Any) -> Case:
    return "tokenizer", dict(table), (), options


def levels(r: random.Random) -> dict[str, Any]:
    """Options of convolutional networks."""
    count = r.choice([1, 2, 3])
    return {
        "image_size": 2 ** (count - 1) * r.choice([2, 3, 4]),
        "channels": r.choice([4, 8, 12]),
        "channel_multipliers": [r.choice([1, 2, 3]) for _ in range(count)],
        "num_res_blocks": r.choice([1, 2, 3]),
        "norm_groups": 4,
    }


def convolutional(r: random.Random, use: str = "conv_vq", **table: Any) -> Case:
    """Networks with attention at some of their levels."""
    sizes = levels(r)
    attended = sorted(r.sample(range(len(sizes["channel_multipliers"])), r.choice([0, 1])))
    table = {"use": use, **sizes, "attention_levels": attended, "z_channels": r.choice([4, 7]), **table}
    return tokenizer(table, image_size=sizes["image_size"], norm_groups=4)


def codebook(r: random.Random, use: str = "vq", **options: Any) -> dict[str, Any]:
    return {"use": use, "codebook_size": r.choice([5, 16, 33]), "width": r.choice([3, 6]), **options}


def size(r: random.Random) -> dict[str, int]:
    return {"width": r.choice([16, 24]), "depth": r.choice([1, 2, 3]), "num_heads": 2}


def patches(r: random.Random) -> dict[str, int]:
    patch = r.choice([2, 4])
    return {"image_size": patch * r.choice([2, 3, 4]), "patch_size": patch}


PAIR = {"encoder_num_heads": 2, "decoder_num_heads": 2}


def llamagen_vq(r: random.Random) -> Case:
    table = levels(r)
    decoder = [r.choice([1, 2, 3]) for _ in table["channel_multipliers"]]
    if r.choice([True, False]):
        table |= {"decoder_channel_multipliers": decoder}
    quantizer = codebook(r, l2_normalise=r.choice([True, False]))
    options = {"image_size": table["image_size"], "norm_groups": 4, "l2_normalise": quantizer["l2_normalise"]}
    return tokenizer({"use": "conv_vq", **table, "z_channels": r.choice([4, 7]), "quantizer": quantizer}, **options)


def ldm_vae(r: random.Random) -> Case:
    width = r.choice([3, 4])
    return convolutional(r, "kl_vae", z_channels=4, width=width, double_z=True, latent_convs=width != 4)


def diffusers(r: random.Random) -> Case:
    kind, table, args, options = ldm_vae(r)
    table |= {"width": 4, "channel_multipliers": [1, *table["channel_multipliers"][1:]]}
    return kind, table, args, options


def bare_networks(tokenizer_use: str, **quantizer: Any) -> Callable[[random.Random], Case]:
    """Networks with nothing between them and the quantizer."""

    def case(r: random.Random) -> Case:
        sizes = levels(r)
        table = {"use": tokenizer_use, **sizes, "quantizer": {**quantizer, "width": r.choice([3, 7])}}
        return tokenizer(table, image_size=sizes["image_size"], norm_groups=4)

    return case


def titok(r: random.Random) -> Case:
    cut = patches(r)
    table = {"use": "titok", **cut, "num_latent_tokens": r.choice([3, 6]), "encoder": size(r), "decoder": size(r)}
    table |= {"quantizer": codebook(r), "output": r.choice(["pixels", "codes"])}
    if table["output"] == "codes":
        count = cut["patch_size"].bit_length()
        multipliers = [r.choice([1, 2]) for _ in range(count)]
        decoder = {"channels": 4, "channel_multipliers": multipliers, "num_res_blocks": r.choice([1, 2])}
        table |= {"inner_codes": 7, "pixel_decoder": {**decoder, "norm_groups": 4, "z_channels": r.choice([3, 8])}}
    return tokenizer(table, **PAIR, norm_groups=4)


def gigatok(r: random.Random) -> Case:
    table = levels(r)
    side = r.choice([2, 4])
    table |= {"image_size": side * 2 ** (len(table["channel_multipliers"]) - 1), "z_channels": r.choice([6, 8])}
    table |= {"num_latent_tokens": r.choice([side, side * side]), "encoder": size(r), "decoder": size(r)}
    semantic = {"semantic": {"outputs": r.choice([5, 9]), "depth": 1}} if r.choice([True, False]) else {}
    table = {"use": "gigatok", **table, **semantic, "quantizer": codebook(r)}
    return tokenizer(table, **PAIR, norm_groups=4, semantic_depth=1)


def robustok(r: random.Random) -> Case:
    cut = patches(r)
    absolute = r.choice([True, False])
    tokens = (cut["image_size"] // cut["patch_size"]) ** 2 if absolute else r.choice([3, 5])
    table = {"use": "vit_vq", **cut, **size(r), "num_latent_tokens": tokens, "absolute_positions": absolute}
    return tokenizer({**table, "mlp_ratio": r.choice([2.0, 4.0]), "quantizer": codebook(r)}, num_heads=2)


def maetok(r: random.Random, **more: Any) -> Case:
    rotary = r.choice(["none", "mixed"])
    table = {"use": "mae_tok", **patches(r), **size(r), "num_latent_tokens": 6, "latent_width": r.choice([3, 8])}
    table |= {"decoder_depth": r.choice([1, 2]), "rotary": rotary, "decoder_cls_token": r.choice([True, False])}
    table |= {"decoder_absolute_positions": rotary == "none", **more}
    return tokenizer(table, num_heads=2, decoder_num_heads=2)


def softvq(r: random.Random) -> Case:
    return maetok(r, soft_codebook={"num_tables": r.choice([1, 2, 3]), "size": r.choice([5, 16])})


def ldetok(r: random.Random) -> Case:
    table = {"use": "vit_kl", "style": "detok", **patches(r), "latent_width": r.choice([3, 8])}
    return tokenizer({**table, "encoder": size(r), "decoder": size(r)}, **PAIR)


def rae(r: random.Random) -> Case:
    decoder = {f"decoder_{name}": value for name, value in size(r).items()}
    side = r.choice([2, 3])
    encoder = {"encoder": "test_vit", "weights": "random", "encoder_image_size": 16 * side}
    table = {"use": "rae", "image_size": side * r.choice([2, 4, 5]), "decoder_style": "mae", "statistics_images": 0}
    table |= {"decoder_mlp_width": r.choice([20, 33])}
    return tokenizer(table | encoder | decoder, encoder="test_vit", weights="random", num_heads=2)


def codes(r: random.Random, table: dict[str, Any], **options: Any) -> Case:
    """A generator of codes."""
    side = r.choice([2, 3])
    space = LatentSpace(kind="discrete", num_tokens=side * side, width=8, codebook_size=33, grid=(side, side))
    return "generator", table, (space, r.choice([1, 3, 5])), {"code_width": 8, **options}


def rar(r: random.Random) -> Case:
    return codes(r, {"use": "rar", **size(r), "mlp_width": r.choice([33, 48])})


def llamagen_gpt(r: random.Random) -> Case:
    table = {"use": "llamagen_gpt", **size(r), "mlp_width": r.choice([21, 40])}
    kind, table, (space, classes), options = codes(r, table, num_heads=2)
    if r.choice([True, False]):
        table["positions"] = "learned"
        space = LatentSpace(kind="discrete", num_tokens=space.num_tokens, width=8, codebook_size=33)
    return kind, table, (space, classes), options | {"num_tokens": space.num_tokens}


def flow(r: random.Random, table: Mapping[str, Any], *, patched: bool) -> Case:
    """A generator of vectors."""
    width = r.choice([2, 5])
    space = LatentSpace(kind="continuous", num_tokens=r.choice([5, 7]), width=width)
    if patched:
        patch = r.choice([1, 2, 3])
        side = patch * r.choice([1, 2])
        space = LatentSpace(kind="continuous", num_tokens=side * side, width=width, grid=(side, side))
        table = {**table, "patch_size": patch, "guided_channels": r.choice([1, 2])}
    options = {"num_heads": 2} | ({"guided_channels": table["guided_channels"]} if patched else {})
    return "generator", {**size(r), **table}, (space, r.choice([1, 3])), options


def sit(r: random.Random) -> Case:
    table = {"use": "flow_transformer", "mlp_width": r.choice([33, 40])}
    if r.choice([True, False]):
        return flow(r, {**table, "direction": "data", "learn_sigma": r.choice([True, False])}, patched=True)
    qk_norm = {"qk_norm": True, "qk_norm_eps": 1e-5} if r.choice([True, False]) else {}
    return flow(r, {**table, **qk_norm}, patched=False)


def dit(r: random.Random) -> Case:
    return flow(r, {"use": "dit", "mlp_width": r.choice([33, 40])}, patched=True)


def lightningdit(r: random.Random) -> Case:
    norm = r.choice(["rms", "layer"])
    table = {"use": "flow_transformer", "direction": "data", "norm": norm, "mlp": r.choice(["swiglu", "gelu_tanh"])}
    table |= {name: r.choice([True, False]) for name in ("shift", "rope", "learn_sigma")}
    if r.choice([True, False]):
        table |= {"qk_norm": True, "qk_norm_eps": 1e-6 if norm == "rms" else 1e-5}
    return flow(r, {**table, "mlp_width": r.choice([21, 32])}, patched=True)


IMPORTERS: dict[str, Callable[[random.Random], Case]] = {
    "robustok": robustok,
    "llamagen_vq": llamagen_vq,
    "taming_vq": lambda r: convolutional(r, quantizer=codebook(r, l2_normalise=False)),
    "ibq": lambda r: convolutional(r, quantizer=codebook(r, "ibq")),
    "vqgan_lc": lambda r: convolutional(r, quantizer=codebook(r, "projected_vq", table_width=r.choice([5, 9]))),
    "ldm_vae": ldm_vae,
    "diffusers": diffusers,
    "maskgit_vq": bare_networks("maskgit_vq", use="vq", codebook_size=33, l2_normalise=False),
    "open_magvit2": bare_networks("open_magvit2", use="lfq", lowest_bit_first=True),
    "titok": titok,
    "gigatok": gigatok,
    "maetok": maetok,
    "softvq": softvq,
    "ldetok": ldetok,
    "rae": rae,
    "rar": rar,
    "llamagen_gpt": llamagen_gpt,
    "sit": sit,
    "dit": dit,
    "lightningdit": lightningdit,
}


def write(weights: Mapping[str, Tensor], folder: Path, r: random.Random) -> Path:
    """The weights in one of the containers of published files."""
    weights = {name: value.detach().clone().contiguous() for name, value in weights.items()}
    file = folder / "weights.pt"
    raw = {name: torch.zeros_like(value) for name, value in weights.items()}
    wrapped = {f"module._orig_mod.{name}": value for name, value in weights.items()}
    content = r.choice([None, weights, {"model": wrapped, "steps": 7}, {"model": raw, "ema": wrapped}])
    if content is None:
        save_file(weights, folder / "weights.safetensors")
        return folder / "weights.safetensors"
    torch.save(content, file)
    return file


def outputs(component: Any) -> list[Tensor]:
    """What a component computes of random inputs."""
    torch.manual_seed(1)
    if hasattr(component, "image_size"):
        latents = component.encode(torch.rand(2, 3, component.image_size, component.image_size) * 2 - 1)
        return [latents.vectors, component.decode(latents)]
    space, labels = component.space, torch.tensor([0, component.num_classes])
    if space.kind == "discrete":
        return [component(torch.randint(space.codebook_size, (2, space.num_tokens)), labels)]
    vectors = torch.randn(2, space.num_tokens, space.width)
    times = torch.tensor([3, 700]) if component.name == "dit" else torch.tensor([0.2, 0.9])
    return [component(vectors, times, labels), component._vectors(Latents(vectors=vectors))]


def filled(component: nn.Module) -> nn.Module:
    """With random weights everywhere: some start at zero, and would hide a mistake."""
    for parameter in component.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return component.eval()


def test_every_importer_is_tried() -> None:
    assert IMPORTERS.keys() | {"auto"} >= {
        name for name, kind in REGISTRY.classes("importer").items() if kind.__module__.startswith("robustok_hub.")
    }


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("importer", IMPORTERS)
def test_sizes_follow_from_the_weights(importer, seed, tmp_path):
    r = random.Random(f"{importer} {seed}")
    kind, table, args, options = IMPORTERS[importer](r)
    torch.manual_seed(seed)
    built = filled(REGISTRY.build(kind, table, *args))
    weights = export(importer, built)
    found, again, _ = import_file(importer, write(weights, tmp_path, r), **options)
    sizes = {name: value for name, value in table.items() if isinstance(value, int | str)}
    assert {name: found[name] for name in sizes} == sizes
    assert again.space == built.space
    exported = export(importer, again)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], value.to(exported[name].dtype)) for name, value in weights.items())
    for value, wanted in zip(outputs(again), outputs(built), strict=True):
        torch.testing.assert_close(value, wanted, atol=0.0, rtol=0.0)


@torch.no_grad()
@pytest.mark.parametrize("importer", IMPORTERS)
def test_the_command_prints_the_options_that_restore_what_it_exports(importer, tmp_path, command):
    kind, table, args, _ = IMPORTERS[importer](random.Random(importer))
    torch.manual_seed(0)
    built = filled(REGISTRY.build(kind, table, *args))
    save_component(tmp_path / "ours", kind, REGISTRY.spec(kind, table).table(), built)
    code, _, printed = command("export", importer, "ours", "out/file.safetensors")
    assert code == 0, printed
    words = noted_words(printed) or ["robustok", "import", importer, "out/file.safetensors", "FOLDER"]
    code, _, errors = command(*words[1:])
    assert code == 0, errors
    again = load_component(REGISTRY, tmp_path / "FOLDER")
    for value, wanted in zip(outputs(again), outputs(built), strict=True):
        torch.testing.assert_close(value, wanted)
