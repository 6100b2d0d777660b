"""SoftVQ's tokenizers compute what the published code computes, read from published-style files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from published import Case, export, import_file, millions
from robustok.testing import check_component
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry

UNUSED = {"decoder.model.patch_embed.proj.weight", "decoder.model.patch_embed.proj.bias"}
OPTIONS = {"num_heads": 4}


@pytest.fixture
def case() -> Case:
    return Case("softvq_a")


@torch.no_grad()
def test_it_computes_what_the_published_code_computes(case, tmp_path):
    _, tokenizer, _ = case.load("softvq", tmp_path, **OPTIONS)
    images = case.inputs["image"]
    latents = tokenizer.encode(images)
    chosen = tokenizer.soft_codebook.weights(latents.features).argmax(dim=-1)  # (B, tables, N / tables)
    case.check(
        encoder_tokens=tokenizer.encoder(images),
        z=latents.features,
        z_q=latents.vectors,
        indices=chosen.transpose(0, 1).reshape(chosen.shape),  # published in the order (tables, B), not (B, tables)
        recon=tokenizer.decode(latents),
        decoded_given=tokenizer.decode_vectors(case.inputs["latent"]),
    )


def test_its_sizes_are_read_from_its_weights(case, tmp_path):
    table, tokenizer, report = case.load("softvq", tmp_path, **OPTIONS)
    config = case.config
    assert table["soft_codebook"]["num_tables"] == config["num_codebooks"]
    assert table["soft_codebook"]["size"] == config["codebook_size"]
    assert table["soft_codebook"]["temperature"] == config["tau"]
    assert (table["decoder_absolute_positions"], table["decoder_cls_token"], table["rotary"]) == (True, True, "none")
    assert (tokenizer.space.kind, tokenizer.space.num_tokens) == ("continuous", config["num_latent_tokens"])
    assert report.keys() >= UNUSED


def test_export_is_the_inverse_of_import_except_for_unused_weights(case, tmp_path):
    _, tokenizer, _ = case.load("softvq", tmp_path, **OPTIONS)
    check_component("importer", "softvq", OPTIONS, file=tmp_path / "weights.safetensors")
    for name in UNUSED:
        del case.weights[name]
    assert case.same_weights(export("softvq", tokenizer))


def test_a_decoder_of_another_size_than_the_encoder_is_read(case, tmp_path):
    """As in softvq-bl-64: base and large."""
    table, _, _ = case.load("softvq", tmp_path, **OPTIONS)
    made = load_registry().build("tokenizer", {**table, "decoder_width": 48, "decoder_depth": 3})
    save_file(dict(export("softvq", made)), tmp_path / "bl.safetensors")
    read, again, _ = import_file("softvq", tmp_path / "bl.safetensors", num_heads=4, decoder_num_heads=4)
    assert (read["decoder_width"], read["decoder_depth"], read["decoder_num_heads"]) == (48, 3, 4)
    images = case.inputs["image"]
    assert torch.equal(again.decode(again.encode(images)), made.eval().decode(made.encode(images)))


def test_the_window_of_codes_is_dropped_with_a_word(case, tmp_path):
    save_file({**case.weights, "quantize.codebook_used": torch.zeros(65536)}, tmp_path / "file.safetensors")
    report = import_file("softvq", tmp_path / "file.safetensors", **OPTIONS)[2]
    assert report["quantize.codebook_used*"] == "dropped 1 weights: a window of recent codes"


def test_files_of_softvq_and_maetok_are_told_apart(case, tmp_path):
    case.load("softvq", tmp_path, **OPTIONS)
    with pytest.raises(RobustokError, match="this is not a MAETok tokenizer, whose weights it has among others"):
        import_file("maetok", tmp_path / "weights.safetensors")
    save_file(Case("maetok_a").weights, tmp_path / "maetok.safetensors")
    with pytest.raises(RobustokError, match=r"not a SoftVQ tokenizer: it lacks quantize\.embedding"):
        import_file("softvq", tmp_path / "maetok.safetensors")


def test_softvq_l_64_has_the_parameters_of_two_large_vits_and_of_four_tables():
    sizes = {"width": 1024, "depth": 24, "num_heads": 16, "num_latent_tokens": 64, "rotary": "none"}
    flags = {"decoder_absolute_positions": True, "decoder_cls_token": True, "mask_smallest": 0, "mask_largest": 0}
    with_codebook = millions("tokenizer", {"use": "mae_tok", **sizes, **flags, "soft_codebook": {}})
    without = millions("tokenizer", {"use": "mae_tok", **sizes, **flags})
    assert with_codebook - without == pytest.approx(4 * 8192 * 32 / 1e6)
    assert without == pytest.approx(2 * 303.2, abs=2.0)  # DINOv2-L at 16 pixels a patch
