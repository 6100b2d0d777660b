"""The tokenizers compute what the published code computes, read from published-style files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry

PARITY = Path(__file__).parents[1] / "parity"
ROBUSTOK = ["robustok_tokenizer_a", "robustok_tokenizer_nope_a"]
LLAMAGEN = ["llamagen_vq_a", "llamagen_vq_usage_a"]


class Case:
    """A parity file: its weights under the published names, inputs, outputs and tolerances."""

    def __init__(self, name: str) -> None:
        self.about = json.loads((PARITY / f"{name}.json").read_text())
        tensors = load_file(PARITY / f"{name}.safetensors")
        self.weights = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
        self.inputs = {key[3:]: value for key, value in tensors.items() if key.startswith("in.")}
        self.outputs = {key[4:]: value for key, value in tensors.items() if key.startswith("out.")}

    def check(self, **actual: torch.Tensor) -> None:
        for name, value in actual.items():
            expected = self.outputs[name]
            if name == "indices":
                assert torch.equal(value, expected)
            else:
                limits = self.about["tolerance"][name]
                torch.testing.assert_close(value, expected, atol=limits["atol"], rtol=limits["rtol"])


def as_map(vectors: torch.Tensor) -> torch.Tensor:
    """(B, N, D) to (B, D, h, w), as in the published code."""
    return rearrange(vectors, "b (h w) d -> b d h w", h=int(vectors.shape[1] ** 0.5))


def load(importer: str, file: Path, **options: object):
    return load_registry().build("importer", {"use": importer, **options}).load(file, load_registry())


def load_robustok(name: str, folder: Path):
    """Loads a checkpoint as published: averaged weights, wrappers' prefixes, a teacher, options."""
    case = Case(name)
    averaged = {f"module._orig_mod.{key}": value for key, value in case.weights.items()}
    averaged["module._orig_mod.semantic_model.blocks.0.weight"] = torch.ones(2)
    content = {
        "model": {key: torch.zeros_like(value) for key, value in case.weights.items()},
        "ema": averaged,
        "optimizer": {"state": {}, "param_groups": []},
        "steps": 7,
        "args": argparse.Namespace(lr=3e-5),
    }
    torch.save(content, folder / "main-train.pt")
    config = case.about["config"]
    options = {"num_heads": config["num_heads"], "l2_normalise": config["codebook_l2_norm"]}
    return case, *load("robustok", folder / "main-train.pt", **options)


def load_llamagen(name: str, folder: Path):
    case = Case(name)
    save_file(case.weights, folder / "vq.safetensors")
    return case, *load("llamagen_vq", folder / "vq.safetensors", image_size=case.about["config"]["image"])


@torch.no_grad()
@pytest.mark.parametrize("name", ROBUSTOK)
def test_robustok_tokenizers_compute_what_the_published_code_computes(name, tmp_path):
    case, _, tokenizer, _ = load_robustok(name, tmp_path)
    latents = tokenizer.encode(case.inputs["image"])
    recon = tokenizer.decode(latents)
    given = tokenizer.quantizer.lookup(case.inputs["indices"])
    case.check(
        encoder_tokens=tokenizer.encoder(case.inputs["image"]),
        z=as_map(latents.features),
        indices=latents.codes,
        z_q=as_map(latents.vectors),
        post_quant=as_map(tokenizer.post_quant_conv(latents.vectors)),
        recon=recon,
        recon_clamped=recon.clamp(-1, 1),
        z_q_given=as_map(given),
        decoded_given=tokenizer.decode_vectors(given),
    )
    assert len(case.outputs) == 9, "every output is compared"


@torch.no_grad()
@pytest.mark.parametrize("name", LLAMAGEN)
def test_llamagen_tokenizers_compute_what_the_published_code_computes(name, tmp_path):
    case, _, tokenizer, _ = load_llamagen(name, tmp_path)
    latents = tokenizer.encode(case.inputs["image"])
    given = tokenizer.quantizer.lookup(case.inputs["indices"])
    case.check(
        z=as_map(latents.features),
        indices=latents.codes,
        z_q=as_map(latents.vectors),
        recon=tokenizer.decode(latents),
        z_q_given=as_map(given),
        decoded_given=tokenizer.decode_vectors(given),
    )
    assert len(case.outputs) == 6, "every output is compared"


@pytest.mark.parametrize("name", ROBUSTOK)
def test_the_size_of_a_robustok_tokenizer_is_read_from_its_weights(name, tmp_path):
    case, table, tokenizer, _ = load_robustok(name, tmp_path)
    config = case.about["config"]
    assert table["image_size"] == tokenizer.image_size == config["img_size"]
    assert table["patch_size"] == config["patch_size"]
    assert (table["width"], table["depth"], table["mlp_ratio"]) == (config["embed_dim"], config["depth"], 4.0)
    assert table["absolute_positions"] is config["abs_pos_embed"]
    assert table["quantizer"]["codebook_size"] == tokenizer.space.codebook_size == config["codebook_size"]
    assert tokenizer.space.num_tokens == config["num_latent_tokens"]
    assert not tokenizer.training
    rebuilt = load_registry().build("tokenizer", table)
    assert rebuilt.state_dict().keys() == tokenizer.state_dict().keys()


@pytest.mark.parametrize("name", LLAMAGEN)
def test_the_size_of_a_llamagen_tokenizer_is_read_from_its_weights(name, tmp_path):
    case, table, _, _ = load_llamagen(name, tmp_path)
    config = case.about["config"]
    assert table["channel_multipliers"] == config["encoder_ch_mult"]
    assert (table["channels"], table["num_res_blocks"]) == (config["ch"], config["num_res_blocks"])
    assert table["z_channels"] == config["z_channels"]


def test_a_llamagen_tokenizer_may_have_a_wider_decoder(tmp_path):
    sizes = {"image_size": 16, "channels": 8, "norm_groups": 4, "z_channels": 6, "num_res_blocks": 1}
    multipliers = {"channel_multipliers": [1, 1, 2], "decoder_channel_multipliers": [1, 2, 3]}
    quantizer = {"use": "vq", "codebook_size": 8, "width": 4}
    registry = load_registry()
    tokenizer = registry.build("tokenizer", {"use": "conv_vq", **sizes, **multipliers, "quantizer": quantizer}).eval()
    save_file(registry.build("importer", {"use": "llamagen_vq"}).export(tokenizer), tmp_path / "vq.safetensors")
    table, again, _ = load("llamagen_vq", tmp_path / "vq.safetensors", image_size=16, norm_groups=4)
    assert {name: table[name] for name in multipliers} == multipliers
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(again.decode(again.encode(images)), tokenizer.decode(tokenizer.encode(images)))


def test_a_llamagen_tokenizer_with_another_number_of_levels_in_its_decoder_is_refused(tmp_path):
    sizes = {"image_size": 16, "channels": 8, "norm_groups": 4, "z_channels": 6, "num_res_blocks": 1}
    table = {"use": "conv_vq", **sizes, "quantizer": {"use": "vq", "codebook_size": 8, "width": 4}}
    registry = load_registry()
    importer = registry.build("importer", {"use": "llamagen_vq"})
    two, three = (
        importer.export(registry.build("tokenizer", table | {"channel_multipliers": multipliers}))
        for multipliers in ([1, 2], [1, 2, 2])
    )
    weights = {name: value for name, value in three.items() if not name.startswith("encoder.")}
    weights |= {name: value for name, value in two.items() if name.startswith("encoder.")}
    save_file(weights, tmp_path / "vq.safetensors")
    with pytest.raises(RobustokError, match="the encoder has 2 levels and the decoder 3"):
        load("llamagen_vq", tmp_path / "vq.safetensors", image_size=16, norm_groups=4)


def test_the_report_names_what_was_dropped(tmp_path):
    _, _, tokenizer, report = load_robustok("robustok_tokenizer_a", tmp_path)
    assert report["weights"] == "ema"
    assert report["not read"] == "model, optimizer, steps, args"
    assert "teacher" in report["semantic_model.*"]
    assert {"encoder.lvl1LC", "decoder.lvl1LC"} <= report.keys()
    assert tokenizer.quantizer.usage.sum().item() == pytest.approx(1.0)
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("name", ROBUSTOK)
def test_export_is_the_inverse_of_import_for_robustok(name, tmp_path):
    case, _, tokenizer, _ = load_robustok(name, tmp_path)
    exported = load_registry().build("importer", {"use": "robustok"}).export(tokenizer)
    assert exported.keys() == case.weights.keys()
    hits = case.weights.pop("quantize.ema_vocab_hit_SV")
    assert torch.allclose(exported["quantize.ema_vocab_hit_SV"], hits / hits.sum())
    assert all(torch.equal(exported[key], value) for key, value in case.weights.items())


@pytest.mark.parametrize("name", LLAMAGEN)
def test_export_is_the_inverse_of_import_for_llamagen(name, tmp_path):
    case, _, tokenizer, _ = load_llamagen(name, tmp_path)
    exported = load_registry().build("importer", {"use": "llamagen_vq"}).export(tokenizer)
    case.weights.pop("quantize.codebook_used", None)
    assert exported.keys() == case.weights.keys()
    assert all(torch.equal(exported[key], value.float()) for key, value in case.weights.items())


def test_an_export_for_llamagens_code_has_the_window_of_recent_codes_that_it_wants(tmp_path):
    case, _, tokenizer, _ = load_llamagen("llamagen_vq_usage_a", tmp_path)
    exported = load_registry().build("importer", {"use": "llamagen_vq", "usage_window": True}).export(tokenizer)
    assert exported.keys() == case.weights.keys()
    assert exported["quantize.codebook_used"].shape == case.weights["quantize.codebook_used"].shape
    assert not exported["quantize.codebook_used"].any()
