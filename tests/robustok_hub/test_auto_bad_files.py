"""Files that `auto` cannot read are one message each, as with the importer that it would choose."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from published import Case
from readers import write_sharded

OPTIONS = ("--set", "encoder_num_heads=4", "--set", "decoder_num_heads=4")


@pytest.fixture
def weights():
    """A TiTok tokenizer's."""
    return dict(Case("titok_a").weights)


def test_a_truncated_file(refused, weights, tmp_path):
    save_file(weights, file := tmp_path / "cut.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    assert "cut.safetensors: this safetensors file is damaged" in refused("import", "auto", file, "out")


def test_weights_in_floats_of_8_bits(refused, weights, tmp_path):
    save_file(weights | {"latent_tokens": weights["latent_tokens"].to(torch.float8_e4m3fn)}, tmp_path / "f.safetensors")
    assert "weights are quantized: latent_tokens (float8_e4m3fn)" in refused("import", "auto", "f.safetensors", "out")


def test_weights_in_half_precision_are_read(command, weights, tmp_path):
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "f.safetensors")
    code, _, errors = command("import", "auto", "f.safetensors", "out", *OPTIONS)
    assert code == 0, errors


def test_sharded_weights_are_read_and_a_missing_shard_is_named(command, refused, weights, tmp_path):
    index = write_sharded(tmp_path / "sharded", weights)
    code, _, errors = command("import", "auto", index, "out", *OPTIONS)
    assert code == 0, errors
    index.with_name("part-1.safetensors").unlink()
    assert "1 of the 2 files that this index names are missing: part-1" in refused("import", "auto", index, "two")


def test_a_configuration_beside_the_file_that_contradicts_the_weights(refused, weights, tmp_path):
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_latent_tokens": len(weights["latent_tokens"]) + 1}))
    message = refused("import", "auto", "model.safetensors", "out", *OPTIONS)
    assert "config.json: this configuration is not that of the weights beside it: num_latent_tokens is" in message


@pytest.mark.parametrize("place", ["nowhere.pt", "."])
def test_a_place_without_a_file(refused, place):
    message = refused("import", "auto", place, "out")
    assert "there is no such file" in message or "this is a folder, not a weight file" in message


def test_one_of_several_files_names_their_index(refused, weights, tmp_path):
    save_file(weights, tmp_path / "model-00001-of-00002.safetensors")
    message = refused("import", "auto", "model-00001-of-00002.safetensors", "out")
    assert "by its name this is file 1 of 2 that hold a model together" in message
    assert "model.safetensors.index.json, which is not beside it" in message


def test_options_that_are_missing_are_those_of_the_importer_that_was_chosen(refused, tmp_path):
    save_file(Case("vavae_a").weights, tmp_path / "vae.safetensors")
    message = refused("import", "auto", "vae.safetensors", "out")
    assert "norm_groups 32 does not divide the 8 channels" in message
    assert "`robustok plugins importer ldm_vae`" in message


def test_the_names_of_a_lightning_modules_network_are_read(command, weights, tmp_path):
    torch.save({"state_dict": {f"model.{name}": value for name, value in weights.items()}}, tmp_path / "last.ckpt")
    code, _, errors = command("import", "auto", "last.ckpt", "out", *OPTIONS)
    assert code == 0, errors
