"""Foreign files are refused with one message and never run code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry

PARITY = Path(__file__).parents[1] / "parity"
OPTIONS = {"robustok": {"num_heads": 4}, "llamagen_vq": {"image_size": 16}}


def published(importer: str) -> dict[str, torch.Tensor]:
    name = {"robustok": "robustok_tokenizer_a", "llamagen_vq": "llamagen_vq_a"}[importer]
    tensors = load_file(PARITY / f"{name}.safetensors")
    return {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}


def load(importer: str, file: Path, **options: object):
    registry = load_registry()
    return registry.build("importer", {"use": importer, **OPTIONS[importer], **options}).load(file, registry)


def refusal(importer: str, file: Path, **options: object) -> RobustokError:
    with pytest.raises(RobustokError) as caught:
        load(importer, file, **options)
    assert caught.value.exit_code == 2
    assert caught.value.where == str(file)
    return caught.value


class Malicious:
    """Pickles to a call that creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("importer", ["robustok", "llamagen_vq"])
@pytest.mark.parametrize("suffix", ["pt", "bin"])
def test_a_file_with_code_is_refused_and_its_code_never_runs(importer, suffix, tmp_path):
    trace = tmp_path / "trace"
    torch.save({"model": published(importer), "args": Malicious(trace)}, tmp_path / f"evil.{suffix}")
    assert "may run code" in refusal(importer, tmp_path / f"evil.{suffix}").what
    assert not trace.exists()


@pytest.mark.parametrize("importer", ["robustok", "llamagen_vq"])
@pytest.mark.parametrize("wrap", ["ema", "model", "state_dict", "module", None])
def test_weights_are_found_at_each_location_that_training_scripts_use(importer, wrap, tmp_path):
    weights = published(importer)
    torch.save({wrap: weights} if wrap else weights, tmp_path / "file.pt")
    _, tokenizer, report = load(importer, tmp_path / "file.pt")
    assert report["weights"] == (wrap or "the whole file")
    assert torch.equal(tokenizer.quantizer.embedding, weights["quantize.embedding.weight"].float())


@pytest.mark.parametrize("importer", ["robustok", "llamagen_vq"])
def test_averaged_weights_are_preferred(importer, tmp_path):
    weights = published(importer)
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    torch.save({"model": zeros, "ema": weights}, tmp_path / "file.pt")
    assert load(importer, tmp_path / "file.pt")[1].quantizer.embedding.any()


@pytest.mark.parametrize(
    ("importer", "name"),
    [("robustok", "encoder.model.norm.bias"), ("llamagen_vq", "decoder.mid.0.conv1.weight")],
)
def test_missing_and_unexpected_weights_are_named(importer, name, tmp_path):
    weights = published(importer)
    weights["mystery.weight"] = torch.ones(1)
    del weights[name]
    save_file(weights, tmp_path / "file.safetensors")
    what = refusal(importer, tmp_path / "file.safetensors").what
    assert "unexpected mystery.weight" in what
    assert f"missing {name}" in what


@pytest.mark.parametrize(
    ("importer", "name"),
    [("robustok", "encoder.lvl1LC"), ("robustok", "quantize.embedding.weight"), ("llamagen_vq", "quant_conv.bias")],
)
def test_quantized_weights_are_named(importer, name, tmp_path):
    weights = published(importer)
    weights[name] = weights[name].to(torch.float8_e4m3fn)
    save_file(weights, tmp_path / "file.safetensors")
    what = refusal(importer, tmp_path / "file.safetensors").what
    assert what == f"1 of {len(weights)} weights are quantized: {name} (float8_e4m3fn)"


def test_a_weight_of_another_shape_is_named(tmp_path):
    weights = published("robustok")
    weights["decoder.mask_token"] = torch.ones(1, 1, 3)
    save_file(weights, tmp_path / "file.safetensors")
    assert "wrong shape decoder.mask_token" in refusal("robustok", tmp_path / "file.safetensors").what


def test_tokens_in_another_order_are_refused(tmp_path):
    weights = published("robustok")
    weights["encoder.lvl1LC"] = weights["encoder.lvl1LC"].flip(1)
    save_file(weights, tmp_path / "file.safetensors")
    assert "order" in refusal("robustok", tmp_path / "file.safetensors").what


@pytest.mark.parametrize("importer", ["robustok", "llamagen_vq"])
def test_another_model_is_refused_in_one_line(importer, tmp_path):
    other = {"robustok": "llamagen_vq", "llamagen_vq": "robustok"}[importer]
    save_file(published(other), tmp_path / "file.safetensors")
    lacking = {"robustok": "encoder.model.pos_embed", "llamagen_vq": "encoder.conv_in.weight"}[importer]
    what = refusal(importer, tmp_path / "file.safetensors").what
    assert "it lacks" in what
    assert lacking in what


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("cut.safetensors", b"\x00\x01", "this is neither a safetensors nor a torch file"),
        ("cut.pt", b"PK\x03\x04 nothing", "this torch file is damaged: File is not a zip file"),
        ("empty.pt", b"", "this is an empty file"),
    ],
)
def test_a_damaged_file_is_refused(name, content, complaint, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert complaint in refusal("robustok", tmp_path / name).what


@pytest.mark.parametrize(("content", "complaint"), [([1, 2], "holds a list"), ({"steps": 3}, "holds no weights")])
def test_a_file_without_weights_is_refused(content, complaint, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    assert complaint in refusal("robustok", tmp_path / "file.pt").what


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal("llamagen_vq", tmp_path / "nowhere.pt").what


def test_options_that_the_file_contradicts_are_refused(tmp_path):
    save_file(published("robustok"), tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="width 48 is not a multiple of num_heads 5"):
        load("robustok", tmp_path / "file.safetensors", num_heads=5)


@pytest.mark.parametrize(
    ("importer", "table"),
    [
        ("robustok", {"use": "conv_vq", "image_size": 16}),
        ("llamagen_vq", {"use": "conv_vq", "image_size": 16, "middle": False}),
        ("llamagen_vq", {"use": "conv_vq", "image_size": 32, "stem_patch": 2}),
    ],
)
def test_a_component_that_the_format_cannot_hold_is_not_exported(importer, table):
    registry = load_registry()
    small = {"channels": 8, "norm_groups": 4, "channel_multipliers": [1, 1], "z_channels": 4}
    tokenizer = registry.build("tokenizer", {**table, **small, "quantizer": {"use": "vq", "codebook_size": 4}})
    with pytest.raises(RobustokError, match="the published"):
        registry.build("importer", {"use": importer}).export(tokenizer)
