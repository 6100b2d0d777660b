"""The rows of the paper's tables as recipes: their numbers, the published files that they load, plans and sizes.

The published files are not here. In their place, plans read files of the same layout at tiny size (tests/parity), with
the importer that the recipe names; sizes and costs are those of the published configurations, on the meta device.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from published import Case
from robustok_core import Recipe
from robustok_core.recipe.source import find_recipe
from robustok_core.runs.checking import check
from robustok_core.runs.downloads import Needs

IMAGENET, EPOCHS, TOKENS, VIEWS = 1_281_167, 300, 256, 20
#: rFID, pFID, and gFID with LlamaGen-B, with and without guidance.
PAPER = {
    "vqgan_16384": ("4.50", "18.18", "14.80", "37.39"),
    "llamagen": ("2.19", "13.12", "8.61", "26.34"),
    "ibq_16384": ("1.41", "16.35", "11.01", "30.19"),
    "vqgan_lc": ("3.27", "16.78", "11.80", "31.35"),
    "ibq_8192": ("1.87", "19.62", "10.85", "30.91"),
    "titok": ("1.03", "3.55", "8.84", "25.66"),
    "xqgan_8192": ("0.81", "7.91", "10.18", "25.43"),
    "xqgan_4096": ("0.91", "6.98", "6.91", "13.58"),
    "maskgit": ("2.28", "4.20", "5.85", "18.02"),
    "ibq_1024": ("2.24", "6.37", "11.01", "35.33"),
    "robustok": ("1.02", "2.28", "5.67", "9.47"),
}
every_row = pytest.mark.parametrize("row", PAPER)


def header(name: str) -> str:
    """The comment at the top of a recipe, as one line."""
    lines = find_recipe(f"imagenet256/{name}").read_text().splitlines()
    comment = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(" ".join(line.lstrip("#") for line in comment).split())


def numbers(pattern: str, name: str) -> tuple[str, ...]:
    found = re.search(pattern, header(name))
    assert found, (pattern, name)
    return found.groups()


@every_row
def test_a_rows_headers_have_the_papers_numbers_and_commands_that_run_it(row):
    rfid, pfid, guided, unguided = PAPER[row]
    assert numbers(r"Row: .*?rFID ([\d.]+), pFID ([\d.]+) ", f"evaluate_{row}") == (rfid, pfid)
    pattern = r"LlamaGen-B ([\d.]+) with guidance, ([\d.]+) without"
    assert numbers(pattern, f"llamagen_b_on_{row}") == (guided, unguided)
    for name in (f"evaluate_{row}", f"llamagen_b_on_{row}"):
        assert f"-m robustok_core run imagenet256/{name}" in header(name)
        assert Recipe.load(f"imagenet256/{name}").source.table["run"]["name"] == name


def test_every_recipe_at_the_papers_scale_says_what_it_is_what_it_costs_and_how_to_run_it():
    folder = find_recipe("imagenet256/rar_b").parent
    for file in folder.glob("*.toml"):
        text = header(file.stem)
        assert all(f"{part}: " in text for part in ("What", "Row", "Cost", "Command")), file.stem


# --- plans: the recipe's own importer reads files of the published layout ------------------------------------------

CNN = {"image_size": 16, "norm_groups": 4}
#: The parity file in the layout of a row's published file, and options that do not follow from tiny weights.
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "vqgan_16384": ("taming_vq_a", CNN),
    "llamagen": ("llamagen_vq_a", {"image_size": 16}),
    "ibq_16384": ("ibq_a", CNN),
    "ibq_8192": ("ibq_a", CNN),
    "ibq_1024": ("ibq_a", CNN),
    "vqgan_lc": ("vqgan_lc_a", CNN),
    "titok": ("titok_rgb_a", {"l2_normalise": True, "encoder_num_heads": 4, "decoder_num_heads": 4}),
    "xqgan_8192": ("xqgan_a", {"num_heads": 4}),
    "xqgan_4096": ("xqgan_a", {"num_heads": 4}),
    "robustok": ("robustok_tokenizer_a", {"num_heads": 4}),
    "maskgit": ("maskgit_vq_a", {"image_size": 16}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Ten classes of two training and two validation images of 16 pixels, and a reference of samples."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(10):
            (folder / split / f"class{label}").mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"class{label}" / f"{number}.png")
    np.savez(folder / "reference.npz", arr_0=rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def planned(registry, data, tmp_path, monkeypatch):
    """Plans a recipe with tiny files in place of ImageNet and of the published files."""
    # Networks that judge and teach are not here, and a plan needs none of them.
    monkeypatch.setattr(Needs, "announced", lambda *_: [])

    def plan(name: str, loads: dict[str, tuple[dict[str, Any], dict[str, Any]]], **changes: Any):
        table = Recipe.load(f"imagenet256/{name}").source.table
        overrides: dict[str, Any] = {"data.path": str(data), "data.image_size": 16}
        for artifact, (content, options) in loads.items():
            published = Path(table["load"][artifact]["path"])
            file = tmp_path / artifact / f"{published.stem}.pt"  # the content tells the format, not the name
            file.parent.mkdir(exist_ok=True)
            torch.save(content, file)
            overrides[f"load.{artifact}.path"] = str(file)
            overrides |= {f"load.{artifact}.importer.{key}": value for key, value in options.items()}
        for stage in table["stage"]:
            small = {"batch_size": 4, "num_pairs": 20, "reference": str(data / "reference.npz"), "num_samples": 40}
            overrides |= {f"stage.{stage['use']}.{key}": small[key] for key in small if key in stage}
        recipe = Recipe.load(f"imagenet256/{name}", overrides=overrides | changes)
        return check(recipe, registry=registry, out=tmp_path / "runs")

    return plan


@every_row
def test_a_row_is_planned_from_the_published_file_to_its_numbers(row, planned):
    case, options = TINY[row]
    loads = {"tokenizer": (Case(case).weights, options)}
    assert [stage.name for stage in planned(f"evaluate_{row}", loads).stages] == ["evaluate_tokenizer"]
    plan = planned(f"llamagen_b_on_{row}", loads)
    to_samples = ["tokenize", "train_generator", "sample", "evaluate_generator"]
    assert [stage.name for stage in plan.stages] == [*to_samples, "evaluate_tokenizer"]


def published_heads() -> dict[str, Tensor]:
    """A discriminator with the names and shapes of main-train.pt's (five heads on DINO's maps of 384 channels)."""
    state = {}
    for head in range(5):
        for name, width, kernel in (("0.0", 384, 1), ("1.fn.0", 384, 9), ("2", 1, 1)):
            prefix = f"heads.{head}.{name}"
            state[f"{prefix}.bias"] = torch.zeros(width)
            state[f"{prefix}.weight_orig"] = torch.zeros(width, 384, kernel)
            state[f"{prefix}.weight_u"], state[f"{prefix}.weight_v"] = torch.zeros(width), torch.zeros(384 * kernel)
        for name in ("0.1", "1.fn.1"):
            state |= {f"heads.{head}.{name}.{end}": torch.zeros(384) for end in ("weight", "bias")}
    return state


def with_codes(weights: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """A published tokenizer with another number of codes."""
    table = weights["quantize.embedding.weight"]
    return weights | {"quantize.embedding.weight": torch.ones(count, table.shape[1])}


@pytest.mark.parametrize("size", ["b", "l"])
def test_post_training_of_robustok_reuses_the_published_discriminator(size, planned):
    case = Case("robustok_tokenizer_a")
    held = {"model": case.weights, "ema": case.weights, "discriminator": published_heads()}
    loads = {"tokenizer": (held, {"num_heads": 4}), "generator": (Case("rar_a").weights, {"code_width": 8})}
    plan = planned(f"post_train_robustok_{size}", loads)  # which compares the discriminators
    assert [stage.name for stage in plan.stages] == ["make_pairs", "post_train", "compare_decoders"]


def test_post_training_of_llamagen_and_gigatok_is_planned_with_a_new_discriminator(planned):
    llamagen = (Case("llamagen_vq_a").weights, {"image_size": 16})
    generator = (Case("llamagen_gpt_a").weights, {"num_tokens": 64, "num_heads": 4})
    assert planned("post_train_llamagen", {"tokenizer": llamagen, "generator": generator}).stages
    gigatok = with_codes(Case("gigatok_a").weights, 64)
    options = {"encoder_num_heads": 2, "decoder_num_heads": 3, "norm_groups": 4, "semantic_depth": 1}
    generator = (Case("gigatok_gpt_a").weights, {"code_width": 6, "num_heads": 4})
    assert planned("post_train_gigatok", {"tokenizer": (gigatok, options), "generator": generator}).stages


def test_post_training_of_maetok_is_planned_from_the_published_files_with_a_new_discriminator(planned, data, tmp_path):
    torch.save(Case("maetok_a").weights, tmp_path / "maetok.pt")
    torch.save(Case("sit1d_a").weights, tmp_path / "sit.pt")
    maetok = {"path": str(tmp_path / "maetok.pt"), "importer": {"use": "maetok", "num_heads": 4}}
    sit = {"use": "sit", "num_heads": 4, "mean": [0.25], "std": [1.5]}
    changes = {
        "load.tokenizer": maetok,
        "load.generator": {"path": str(tmp_path / "sit.pt"), "importer": sit},
        # what the recipe's header says of these files
        "stage.post_train.discriminator": "fresh",
        "stage.post_train.losses.adversarial.discriminator_start": 0.0,
        "stage.post_train.losses.adversarial.start": 0.1,
    }
    assert planned("post_train_maetok", {}, **changes).stages


# --- full size: what the headers say of costs ----------------------------------------------------------------------


def vq(codebook_size: int, width: int, *, l2_normalise: bool = True) -> dict[str, Any]:
    return {"use": "vq", "codebook_size": codebook_size, "width": width, "l2_normalise": l2_normalise}


LEVELS = {"use": "conv_vq", "channels": 128, "channel_multipliers": [1, 1, 2, 2, 4], "z_channels": 256}
TAMING = {**LEVELS, "image_size": 256, "num_res_blocks": 2}
VIT = {"use": "vit_vq", "image_size": 256, "patch_size": 16, "width": 768, "depth": 12, "num_heads": 12}
TITOK = {"use": "titok", "num_latent_tokens": 256, "encoder": {"preset": "S"}, "decoder": {"preset": "L"}}


def ibq(codebook_size: int) -> dict[str, Any]:
    quantizer = {"use": "ibq", "codebook_size": codebook_size, "width": 256}
    return {**LEVELS, "image_size": 256, "num_res_blocks": 4, "quantizer": quantizer}


FULL_SIZE: dict[str, dict[str, Any]] = {
    "vqgan_16384": {**TAMING, "quantizer": vq(16384, 256, l2_normalise=False)},
    "llamagen": {**TAMING, "quantizer": vq(16384, 8)},
    "ibq_16384": ibq(16384),
    "vqgan_lc": {**TAMING, "quantizer": {"use": "projected_vq", "codebook_size": 100000, "width": 8}},
    "ibq_8192": ibq(8192),
    "titok": {**TITOK, "output": "pixels", "quantizer": vq(8192, 64, l2_normalise=False)},
    "xqgan_8192": {**VIT, "num_latent_tokens": 256, "quantizer": vq(8192, 32)},
    "xqgan_4096": {**VIT, "num_latent_tokens": 256, "quantizer": vq(4096, 64)},
    "maskgit": {"use": "maskgit_vq", "quantizer": vq(1024, 256, l2_normalise=False)},
    "ibq_1024": ibq(1024),
    "robustok": {**VIT, "num_latent_tokens": 256, "quantizer": vq(4096, 64)},
    "gigatok": {"use": "gigatok", "encoder": {"preset": "S"}, "decoder": {"preset": "B"}},
    "maetok": {
        **VIT,
        "use": "mae_tok",
        "num_latent_tokens": 128,
        "latent_width": 32,
        "rotary": "mixed",
    },
}


class _Encoded(Exception):
    """The vectors have reached the quantizer."""


def _stop(_: Tensor) -> None:
    raise _Encoded


def on_meta(registry, row: str):
    with torch.device("meta"):
        return registry.build("tokenizer", FULL_SIZE[row]).eval()


@torch.no_grad()
def encoding(tokenizer) -> float:
    """GFLOP of encoding an image: the encoder's, counted, and the lookup's, 2 N K D."""
    tokenizer.quantizer.quantize = _stop
    with FlopCounterMode(display=False) as counter, pytest.raises(_Encoded):
        tokenizer.encode(torch.zeros(1, 3, 256, 256, device="meta"))
    space = tokenizer.space
    return (counter.get_total_flops() + 2 * space.num_tokens * space.codebook_size * space.width) / 1e9


@torch.no_grad()
def decoding(tokenizer) -> float:
    """GFLOP of decoding an image."""
    vectors = torch.zeros(1, tokenizer.space.num_tokens, tokenizer.space.width, device="meta")
    with FlopCounterMode(display=False) as counter:
        tokenizer.decode_vectors(vectors)
    return counter.get_total_flops() / 1e9


def generator_of(registry, name: str, space):
    spec = Recipe.load(f"imagenet256/{name}").resolve(registry).tables["generator"]
    with torch.device("meta"):
        return spec.build(space, 1000)


def multiplying(model: torch.nn.Module) -> int:
    """Weights that every token is multiplied by: those of linear layers."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))


@every_row
def test_the_costs_of_a_row_are_those_of_the_published_size(row, registry):
    tokenizer = on_meta(registry, row)
    assert tokenizer.space.num_tokens == TOKENS
    encoded, decoded = encoding(tokenizer), decoding(tokenizer)
    pattern = r"Cost: ([\d.]+) PFLOP .*encoded once \(([\d.]+) GFLOP\) and decoded 16 times \(([\d.]+) GFLOP\)"
    said = [float(number) for number in numbers(pattern, f"evaluate_{row}")]
    assert said == pytest.approx([50_000 * (encoded + 16 * decoded) / 1e6, encoded, decoded], abs=0.06)

    model = generator_of(registry, f"llamagen_b_on_{row}", tokenizer.space)
    pattern = r"Cost: ([\d.]+) EFLOP for training ([\d.]+) M .*each of the ([\d.]+) M .* ([\d.]+) EFLOP for encoding"
    said = [float(number) for number in numbers(pattern, f"llamagen_b_on_{row}")]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    multiplied = multiplying(model)
    training = 6 * EPOCHS * IMAGENET * TOKENS * multiplied / 1e18
    expected = [training, parameters / 1e6, multiplied / 1e6, VIEWS * IMAGENET * encoded / 1e9]
    assert said == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    ("name", "row"),
    [("robustok_b", "robustok"), ("llamagen", "llamagen"), ("gigatok", "gigatok"), ("maetok", "maetok")],
)
def test_the_costs_of_post_training_are_those_of_the_published_decoder(name, row, registry):
    decoded = decoding(on_meta(registry, row))
    said = [float(number) for number in re.findall(r"([\d.]+) [EG]FLOP", header(f"post_train_{name}"))[:1]]
    assert said == pytest.approx([3 * decoded * 7_800 * 1024 / 1e9], abs=0.06)
    assert f"{decoded:.1f} GFLOP" in header(f"post_train_{name}")


@pytest.mark.parametrize("name", ["rar_b", "rar_l", "llamagen_b", "llamagen_l"])
def test_the_costs_of_generators_on_robustok_count_six_operations_for_each_weight_and_token(name, registry):
    model = generator_of(registry, name, on_meta(registry, "robustok").space)
    images = 250_000 * 2048 if name.startswith("rar") else EPOCHS * IMAGENET
    (said,) = numbers(r"Cost: ([\d.]+) EFLOP for training, counted as", name)
    assert float(said) == pytest.approx(6 * multiplying(model) * TOKENS * images / 1e18, abs=0.06)
