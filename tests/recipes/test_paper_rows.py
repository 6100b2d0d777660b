"""The rows of the paper's tables as recipes: their numbers, the published files that they load, plans and sizes.

The published files are not here. In their place, plans read files of the same layout at tiny size (tests/parity), with
the importer that the recipe names; sizes and costs are those of the published configurations, on the meta device.
"""

from __future__ import annotations

import importlib.util
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
from robustok_stages.costs import encoding

TOKENS = 256
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
    to_the_papers_number = ["make_pairs", "post_train", "compare_decoders", "sample", "evaluate_generator"]
    assert [stage.name for stage in plan.stages] == to_the_papers_number


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


# --- full size: what the recipes say of files that are not here, and their headers of costs --------------------------


class _Encoded(Exception):
    """The vectors have reached the quantizer."""


def _stop(_: Tensor) -> None:
    raise _Encoded


def expected_tokenizer(registry, recipe: str):
    """The tokenizer that a recipe expects in [load], on the meta device."""
    expect = Recipe.load(f"imagenet256/{recipe}").resolve(registry).load["tokenizer"].expect
    if isinstance(expect, str):
        return Recipe.load(expect).resolve(registry).tables["tokenizer"].sketch().eval()
    return registry.spec("tokenizer", expect).sketch().eval()


#: Millions of parameters, and of codewords that are fixed, in the published tokenizers.
PARAMETERS = {
    "vqgan_16384": 76.07,
    "llamagen": 71.88,
    "ibq_16384": 110.98,
    "vqgan_lc": 148.6,
    "ibq_8192": 108.88,
    "titok": 330.0,
    "xqgan_8192": 172.3,
    "xqgan_4096": 172.3,
    "maskgit": 54.52,
    "ibq_1024": 107.05,
    "robustok": 172.3,
}


@every_row
def test_a_recipe_expects_the_published_tokenizer(row, registry):
    tokenizer = expected_tokenizer(registry, f"evaluate_{row}")
    assert tokenizer.space.num_tokens == TOKENS
    assert sum(t.numel() for t in tokenizer.state_dict().values()) / 1e6 == pytest.approx(PARAMETERS[row], rel=0.01)


@torch.no_grad()
def test_operations_of_encoding_are_those_of_the_encoder_and_of_the_lookup(registry):
    tokenizer = expected_tokenizer(registry, "evaluate_maskgit")
    counted, space = encoding(tokenizer), tokenizer.space
    tokenizer.quantizer.quantize = _stop
    with FlopCounterMode(display=False) as counter, pytest.raises(_Encoded):
        tokenizer.encode(torch.zeros(1, 3, 256, 256, device="meta"))
    assert counted == counter.get_total_flops() + 2 * space.num_tokens * space.codebook_size * space.width


@pytest.fixture(scope="module")
def script() -> Any:
    """The script that writes the headers."""
    file = Path(__file__).parents[2] / "docs" / "recipe_costs.py"
    spec = importlib.util.spec_from_file_location("recipe_costs", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["rar_b", "llamagen_b_on_maskgit"])
def test_a_header_says_what_plan_computes(name, script):
    """Run python docs/recipe_costs.py if this fails."""
    (said,) = numbers(r"Cost: (.*?\(`robustok plan`\)\.)", name)
    costs = script.costs_of(name)
    assert not script.too_large(costs)
    computed = script.cost_text(costs)
    number = r"\d[\d,.]*(?<![.,])"
    assert re.sub(number, "#", said) == re.sub(number, "#", computed)
    values = [[float(value.replace(",", "")) for value in re.findall(number, text)] for text in (said, computed)]
    assert values[0] == pytest.approx(values[1], rel=0.02)


def test_the_headers_of_all_recipes_are_those_of_the_script(script):
    for file in script.FOLDER.glob("*.toml"):
        assert numbers(r"Cost: (.*?\(`robustok plan`\)\.)", file.stem), file.stem
        assert script.with_cost(file.read_text(), "x").count("# Cost:     x\n") == 1
