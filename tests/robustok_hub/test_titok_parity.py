"""TiTok's tokenizers compute what the published code computes, read from published-style files."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from published import Case, export, import_file, millions
from robustok.testing import check_component
from robustok_core.errors import RobustokError

NAMES = ["titok_a", "titok_rgb_a"]
every = pytest.mark.parametrize("name", NAMES)


def load(name: str, folder, **options):
    case = Case(name)
    heads = case.config["heads"]
    return case, *case.load("titok", folder, encoder_num_heads=heads, decoder_num_heads=heads, **options)


def as_row(vectors: Tensor) -> Tensor:
    return rearrange(vectors, "b n d -> b d 1 n")


@torch.no_grad()
@every
def test_it_computes_what_the_published_code_computes(name, tmp_path):
    case, _, tokenizer, _ = load(name, tmp_path)
    latents = tokenizer.encode(2 * case.inputs["image"] - 1)
    given = tokenizer.quantizer.lookup(case.inputs["indices"][:, 0])
    case.check(
        z=as_row(latents.features),
        indices=latents.codes[:, None],
        z_q=as_row(latents.vectors),
        decoder_out=tokenizer.token_decoder(latents.vectors),
        recon=(tokenizer.decode(latents) + 1) / 2,
        decoded_given=(tokenizer.decode_vectors(given) + 1) / 2,
    )


@every
def test_its_sizes_are_read_from_its_weights(name, tmp_path):
    case, table, tokenizer, report = load(name, tmp_path)
    config = case.config
    assert table["output"] == ("codes" if config["is_legacy"] else "pixels")
    assert table["image_size"] == tokenizer.image_size == config["image"]
    assert table["patch_size"] == config["patch_size"]
    assert (tokenizer.space.num_tokens, tokenizer.space.grid) == (config["num_latent_tokens"], None)
    assert tokenizer.space.codebook_size == config["codebook_size"]
    assert table["encoder"]["depth"] == table["decoder"]["depth"] == config["layers"]
    assert table["quantizer"]["l2_normalise"] is config["use_l2_norm"]
    assert "does not follow from the weights" in report["l2_normalise"]


@every
def test_export_is_the_inverse_of_import(name, tmp_path):
    case, _, tokenizer, _ = load(name, tmp_path)
    assert case.same_weights(export("titok", tokenizer))
    options = {"encoder_num_heads": 4, "decoder_num_heads": 4}
    check_component("importer", "titok", options, file=tmp_path / "weights.safetensors")


HEADS = {"encoder_num_heads": 4, "decoder_num_heads": 4}


def test_codewords_of_the_width_of_sl_256_are_not_normalised_unless_the_option_says_so(tmp_path):
    case = Case("titok_rgb_a")
    weights = dict(case.weights)
    weights["quantize.embedding.weight"] = torch.randn(48, 64)
    weights["encoder.conv_out.weight"], weights["encoder.conv_out.bias"] = torch.randn(64, 32, 1, 1), torch.zeros(64)
    weights["decoder.decoder_embed.weight"] = torch.randn(32, 64)
    save_file(weights, tmp_path / "wide.safetensors")
    assert import_file("titok", tmp_path / "wide.safetensors", **HEADS)[0]["quantizer"]["l2_normalise"] is False
    table, _, _ = import_file("titok", tmp_path / "wide.safetensors", **HEADS, l2_normalise=True)
    assert table["quantizer"]["l2_normalise"] is True


def test_all_wrong_weights_are_named_in_one_message(tmp_path):
    weights = dict(Case("titok_a").weights)
    del weights["decoder.transformer.1.attn.in_proj_weight"]
    weights["encoder.ln_pre.weight"] = torch.ones(3)
    weights["mystery.weight"] = torch.ones(1)
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError) as caught:
        import_file("titok", tmp_path / "file.safetensors", **HEADS)
    for part in (
        "missing decoder.transformer.1.attn.in_proj_weight",
        "wrong shape encoder.ln_pre.weight",
        "unexpected mystery.weight",
    ):
        assert part in caught.value.what


def test_a_file_with_a_part_of_the_decoder_of_codes_is_refused(tmp_path):
    weights = {name: value for name, value in Case("titok_a").weights.items() if not name.startswith("pixel_decoder.")}
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=r"it lacks pixel_decoder\.conv_in\.weight"):
        import_file("titok", tmp_path / "file.safetensors", **HEADS)


@pytest.mark.parametrize("instead", [torch.tensor(0.7), torch.ones(0, 8, 3, 3)], ids=["a number", "no rows"])
def test_a_level_that_is_not_a_convolution_is_refused(instead, tmp_path):
    weights = dict(Case("titok_a").weights)
    weights["pixel_decoder.up.0.block.0.conv1.weight"] = instead
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=r"its pixel_decoder lacks levels"):
        import_file("titok", tmp_path / "file.safetensors", **HEADS)


# --- full size: the numbers of parameters, in millions, of the published files' model cards ---------
@pytest.mark.parametrize(
    ("encoder", "decoder", "tokens", "output", "codebook", "published"),
    [
        ("L", "L", 32, "codes", (4096, 12), 641),
        ("B", "B", 64, "codes", (4096, 12), 205),
        ("S", "S", 128, "codes", (4096, 12), 84),
        ("S", "L", 256, "pixels", (8192, 64), 330),
    ],
)
def test_a_published_size_has_its_number_of_parameters(encoder, decoder, tokens, output, codebook, published):
    table = {
        "use": "titok",
        "num_latent_tokens": tokens,
        "encoder": {"preset": encoder},
        "decoder": {"preset": decoder},
        "output": output,
        "quantizer": {"use": "vq", "codebook_size": codebook[0], "width": codebook[1]},
    }
    assert millions("tokenizer", table) == pytest.approx(published, abs=0.5)
