"""Published diffusion transformers: which variant a file holds, what it does not say, and what is refused."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from safetensors.torch import save_file

from published import Case, export, import_file
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.recipe.source import parse_override
from robustok_core.values.latents import LatentSpace

GRID = LatentSpace(kind="continuous", num_tokens=24, width=4, grid=(4, 6))
SQUARE = LatentSpace(kind="continuous", num_tokens=16, width=4, grid=(4, 4))
SEQUENCE = LatentSpace(kind="continuous", num_tokens=5, width=4)
SMALL = {"width": 16, "depth": 1, "num_heads": 2}
TO_DATA = {"use": "flow_transformer", "direction": "data", **SMALL}


def made(table: dict[str, object], space: LatentSpace = SQUARE):
    """A generator with random weights, in training as published."""
    torch.manual_seed(0)
    generator = load_registry().build("generator", table, space, 3)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return generator.eval()


@torch.no_grad()
def outputs(generator) -> torch.Tensor:
    x = torch.randn(2, generator.space.num_tokens, 4, generator=torch.Generator().manual_seed(0))
    return generator(x, torch.tensor([0.25, 0.75]), torch.tensor([0, 2]))


# --- variants -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("mlp", ["gelu_tanh", "swiglu"])
@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("patch_size", "learn_sigma"), [(1, False), (2, True)])
def test_every_variant_of_a_lightningdit_follows_from_its_weights(
    norm, mlp, rope, qk_norm, patch_size, learn_sigma, tmp_path
):
    variant = {"norm": norm, "mlp": mlp, "rope": rope, "patch_size": patch_size, "learn_sigma": learn_sigma}
    if qk_norm:
        variant |= {"qk_norm": True, "qk_norm_eps": {"layer": 1e-5, "rms": 1e-6}[norm]}
    generator = made({**TO_DATA, **variant})
    save_file(dict(export("lightningdit", generator)), tmp_path / "file.safetensors")
    heads = {} if qk_norm or rope else {"num_heads": 2}
    table, again, report = import_file("lightningdit", tmp_path / "file.safetensors", **heads)
    assert variant.items() <= table.items()
    assert report["positions"].startswith("fixed and rotary" if rope else "fixed only")
    assert torch.equal(outputs(again), outputs(generator))


def test_a_lightningdit_without_shifts_computes_what_one_with_zero_shifts_does(tmp_path):
    weights = Case("lightningdit_p2_a").weights
    zeroed, shorter = dict(weights), dict(weights)
    for name, value in weights.items():
        if name.startswith("blocks.") and "adaLN_modulation" in name:
            shift1, *first, shift2, scale2, gate2 = value.chunk(6)
            zeroed[name] = torch.cat([shift1 * 0, *first, shift2 * 0, scale2, gate2])
            shorter[name] = torch.cat([*first, scale2, gate2])
    read = []
    for name, content in (("zeroed", zeroed), ("shorter", shorter)):
        save_file(content, tmp_path / f"{name}.safetensors")
        read.append(import_file("lightningdit", tmp_path / f"{name}.safetensors"))
    assert [table["shift"] for table, *_ in read] == [True, False]
    x = torch.randn(2, 36, 5, generator=torch.Generator().manual_seed(0))
    expected, found = (generator(x, torch.tensor([0.25, 0.75]), torch.tensor([0, 2])) for _, generator, _ in read)
    torch.testing.assert_close(found, expected)
    assert export("lightningdit", read[1][1]).keys() == shorter.keys()
    with pytest.raises(RobustokError, match="holds only flow_transformer generators of its own style"):
        export("sit", made({**TO_DATA, "shift": False}))


@pytest.mark.parametrize(
    ("importer", "table", "space"),
    [
        ("sit", {"use": "flow_transformer", **SMALL}, SEQUENCE),
        ("sit", {"use": "flow_transformer", "qk_norm": True, "qk_norm_eps": 1e-5, **SMALL}, SEQUENCE),
        ("sit", TO_DATA, SQUARE),
        ("sit", {"patch_size": 4, "learn_sigma": True, **TO_DATA}, SQUARE),
        ("dit", {"use": "dit", **SMALL}, SQUARE),
        ("dit", {"use": "dit", "patch_size": 2, **SMALL}, SQUARE),
    ],
)
def test_what_is_exported_is_read_again(importer, table, space, tmp_path):
    generator = made(table, space)
    save_file(dict(export(importer, generator)), tmp_path / "file.safetensors")
    again_table, again, _ = import_file(importer, tmp_path / "file.safetensors", num_heads=2)
    assert table.items() <= again_table.items()
    assert again.space == space
    assert torch.equal(outputs(again), outputs(generator))


def test_the_report_says_that_sit_and_dit_cannot_be_told_apart(tmp_path):
    case = Case("dit_a")
    assert "of a DiT have the same" in case.load("sit", tmp_path, num_heads=4)[2]["model"]
    assert "of a SiT of images have the same" in case.load("dit", tmp_path, num_heads=4)[2]["model"]


def test_images_of_fewer_channels_than_are_guided_are_guided_as_a_whole(tmp_path):
    generator = made(TO_DATA, LatentSpace(kind="continuous", num_tokens=4, width=2, grid=(2, 2)))
    save_file(dict(export("sit", generator)), tmp_path / "file.safetensors")
    read = lambda **options: import_file("sit", tmp_path / "file.safetensors", num_heads=2, **options)[0]  # noqa: E731
    assert read()["guided_channels"] == 2
    assert read(guided_channels=1)["guided_channels"] == 1
    with pytest.raises(RobustokError, match="a token has 2 channels"):
        read(guided_channels=3)


# --- the configuration beside the weights ---------------------------------------------------------


def test_heads_and_path_are_taken_from_the_configuration(tmp_path):
    case, config = Case("sit1d_a"), {"hidden_size": 32, "depth": 2, "num_heads": 4, "path_type": "cosine"}
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    table, _, report = case.load("sit", tmp_path)
    assert (table["num_heads"], table["path"]) == (4, "cosine")
    assert report["path"] == '"cosine": path_type in config.json'
    table, _, report = case.load("sit", tmp_path, num_heads=2, path="linear")
    assert (table["num_heads"], table["path"]) == (2, "linear")
    assert report["path"] == '"linear": the importer\'s option'


def test_the_default_path_of_the_published_class_is_no_path(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"path_type": "edm"}))
    table, _, report = Case("sit1d_a").load("sit", tmp_path, num_heads=4)
    assert table["path"] == "linear"
    assert report["path"] == "assumed to be \"linear\", for config.json says 'edm'"


def test_a_configuration_of_other_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 1152, "depth": 2}))
    for name, importer in (("sit1d_a", "sit"), ("dit_a", "dit"), ("lightningdit_a", "lightningdit")):
        with pytest.raises(RobustokError, match="hidden_size is 1152 here and 32 in the weights"):
            Case(name).load(importer, tmp_path, num_heads=4)


def test_the_configuration_is_among_the_files_that_are_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for importer in ("sit", "dit", "lightningdit"):
        made_importer = load_registry().build("importer", {"use": importer})
        assert made_importer.also_reads(tmp_path / "weights.pt") == [tmp_path / "config.json"]


# --- statistics and path --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("importer", "table"),
    [("sit", {"path": "cosine", **TO_DATA}), ("lightningdit", {"path": "cosine", **TO_DATA}), ("dit", {"use": "dit"})],
)
def test_export_prints_the_import_options_that_restore_what_the_format_does_not_hold(importer, table, tmp_path, capsys):
    generator = made({**SMALL, **table})
    generator.observe(torch.zeros(4), torch.full((4,), 5.5))
    save_file(dict(export(importer, generator)), tmp_path / "file.safetensors")
    message = capsys.readouterr().err
    options = dict(parse_override(word) for word in shlex.split(message.partition("--set")[2]) if word != "--set")
    assert options == {"mean": [0.0], "std": [5.5], **({} if importer == "dit" else {"path": "cosine"})}
    again = import_file(importer, tmp_path / "file.safetensors", num_heads=2, **options)[1]
    state = generator.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("importer", "table", "space", "what"),
    [
        ("sit", {"norm": "rms", **TO_DATA}, SQUARE, "of its own style"),
        ("sit", {"qk_norm": True, "qk_norm_eps": 1e-5, **TO_DATA}, SQUARE, "of its own style"),
        ("sit", {"use": "flow_transformer", "patch_size": 2, **SMALL}, SQUARE, "of its own style"),
        ("sit", {"use": "dit", **SMALL}, SQUARE, "holds only flow_transformer"),
        ("sit", TO_DATA, GRID, "a square grid"),
        ("sit", TO_DATA, SEQUENCE, "a square grid"),
        ("lightningdit", {"use": "dit", **SMALL}, SQUARE, "holds only flow_transformer"),
        ("lightningdit", {"qk_norm": True, **TO_DATA}, SQUARE, "of its own style"),  # of another eps
        ("dit", TO_DATA, SQUARE, "holds only dit"),
        ("dit", {"use": "dit", **SMALL}, GRID, "a square grid"),
    ],
)
def test_a_generator_that_the_format_cannot_hold_is_refused(importer, table, space, what):
    with pytest.raises(RobustokError, match=what):
        export(importer, made(table, space))


def test_a_tokenizer_is_no_generator():
    table = {"use": "kl_vae", "image_size": 8, "channels": 4, "channel_multipliers": [1], "norm_groups": 2, "width": 4}
    tokenizer = load_registry().build("tokenizer", table)
    for importer in ("sit", "dit", "lightningdit"):
        with pytest.raises(RobustokError, match="holds only"):
            export(importer, tokenizer)


@pytest.mark.parametrize(
    ("importer", "name"),
    [("dit", "sit1d_a"), ("dit", "lightningdit_a"), ("sit", "lightningdit_qk_a"), ("lightningdit", "sit1d_qk_a")],
)
def test_the_file_of_another_model_is_refused(importer, name, tmp_path):
    with pytest.raises(RobustokError, match=r"this is not a .*: it lacks"):
        Case(name).load(importer, tmp_path)


@pytest.mark.parametrize("variant", [{"norm": "rms"}, {"rope": True}])
@pytest.mark.parametrize("importer", ["sit", "dit"])
def test_a_lightningdit_with_plain_mlps_is_not_taken_for_a_sit_or_a_dit(importer, variant, tmp_path):
    weights = export("lightningdit", made({**TO_DATA, **variant}))
    save_file(dict(weights), tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="whose weights it has among others") as caught:
        import_file(importer, tmp_path / "file.safetensors", num_heads=2)
    assert caught.value.hint == "it looks like a file of the importer lightningdit"


def test_missing_unexpected_and_misshapen_weights_are_named_as_published(tmp_path):
    case = Case("dit_a")
    del case.weights["blocks.1.adaLN_modulation.1.bias"]
    case.weights |= {"mystery.weight": torch.ones(1), "x_embedder.weight": torch.ones(32, 16)}
    case.weights["final_layer.linear.weight"] = case.weights["final_layer.linear.weight"][:16].contiguous()
    with pytest.raises(RobustokError, match=r"missing blocks.1.adaLN_modulation.1.bias") as caught:
        case.load("dit", tmp_path, num_heads=4)
    assert "mystery.weight" in caught.value.what
    assert "x_embedder.weight" in caught.value.what
    assert "final_layer.linear.weight" in caught.value.what


@pytest.mark.parametrize("kernel", [(32, 4, 2, 3), (32, 4, 0, 0)])
def test_patches_that_are_no_squares_are_refused(kernel, tmp_path):
    case = Case("sit2d_a")
    case.weights["x_embedder.proj.weight"] = torch.ones(kernel)
    with pytest.raises(RobustokError, match=r"square patches|another shape"):
        case.load("sit", tmp_path, num_heads=4)


def test_one_table_of_rotary_positions_is_not_enough(tmp_path):
    case = Case("lightningdit_qk_a")
    del case.weights["feat_rope.freqs_sin"]
    with pytest.raises(RobustokError, match="it lacks feat_rope.freqs_sin"):
        case.load("lightningdit", tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_averages_are_read_and_prefixes_are_removed(prefix, tmp_path):
    case = Case("sit2d_a")
    weights = {f"{prefix}{name}": value for name, value in case.weights.items()}
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    torch.save({"model": other, "ema": weights}, tmp_path / "0400000.pt")
    _, generator, report = import_file("sit", tmp_path / "0400000.pt", num_heads=4)
    assert "ema" in report["weights"]
    assert case.same_weights(export("sit", generator))
