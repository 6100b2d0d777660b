"""`robustok import` and `robustok export` as a user meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import robustok_core.runs.files
from full_disk import half, leftovers

PARITY = Path(__file__).parents[1] / "parity" / "robustok_tokenizer_a.safetensors"


@pytest.fixture
def published(tmp_path) -> Path:
    """A small tokenizer in the published layout."""
    weights = {name[2:]: value for name, value in load_file(PARITY).items() if name.startswith("w.")}
    save_file(weights, tmp_path / "published.safetensors")
    return tmp_path / "published.safetensors"


def test_import_and_export_are_inverse(command, published):
    code, output, errors = command("import", "robustok", published, "imported", "--set", "num_heads=2")
    assert code == 0, errors
    assert output.endswith("written to imported\n")
    assert command("export", "robustok", "imported", "again.safetensors")[0] == 0
    first, second = load_file(published), load_file("again.safetensors")
    assert first.keys() == second.keys()
    hits = first.pop("quantize.ema_vocab_hit_SV")
    torch.testing.assert_close(second["quantize.ema_vocab_hit_SV"], hits / hits.sum())
    assert all(torch.equal(second[name], value) for name, value in first.items())


@pytest.mark.parametrize("ending", ["pt", "pth", "bin"])
def test_what_export_writes_import_reads_whatever_the_ending(command, published, ending):
    assert command("import", "robustok", published, "imported", "--set", "num_heads=2")[0] == 0
    assert command("export", "robustok", "imported", f"again.{ending}")[0] == 0
    assert isinstance(torch.load(f"again.{ending}", weights_only=True), dict), "a torch file, as its ending says"
    assert command("import", "robustok", f"again.{ending}", "twice", "--set", "num_heads=2")[0] == 0
    first, second = load_file("imported/model.safetensors"), load_file("twice/model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(second[name], value) for name, value in first.items() if name != "quantizer.usage")
    torch.testing.assert_close(second["quantizer.usage"], first["quantizer.usage"])


def test_export_refuses_another_ending(refused, command, published):
    assert command("import", "robustok", published, "imported", "--set", "num_heads=2")[0] == 0
    assert "again.onnx: this name does not end like that of a weight file" in refused(
        "export", "robustok", "imported", "again.onnx"
    )
    assert not Path("again.onnx").exists()


def test_import_reads_a_safetensors_file_called_pt(command, published):
    code, _, errors = command("import", "robustok", published.rename("main-train.pt"), "out", "--set", "num_heads=2")
    assert code == 0, errors


def test_a_model_of_another_kind_is_refused_with_the_names_of_its_weights(refused, published):
    weights = {f"layers.{number}.weight": torch.ones(1) for number in range(9)}
    save_file(weights, published)
    output = refused("import", "robustok", published, "out")
    assert "this is not a RobusTok tokenizer: it lacks encoder.latent_tokens" in output
    assert "hint: its 9 weights are called layers.0.weight, " in output


def test_integers_and_infinite_numbers_are_no_weights(refused, published):
    weights = load_file(published)
    save_file(weights | {"decoder.mask_token": torch.zeros_like(weights["decoder.mask_token"]).long()}, published)
    output = refused("import", "robustok", published, "out", "--set", "num_heads=2")
    assert "the weights do not fit the model: wrong type decoder.mask_token: int64 instead of float32" in output
    save_file(weights | {"decoder.mask_token": torch.full_like(weights["decoder.mask_token"], torch.nan)}, published)
    output = refused("import", "robustok", published, "out", "--set", "num_heads=2")
    assert "weights are NaN or infinite: decoder.mask_token (48 of 48 values)" in output
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "arguments", [["import", "robustok", "published.safetensors"], ["export", "robustok", "there"]]
)
def test_import_and_export_overwrite_nothing(refused, published, tmp_path, arguments):
    (tmp_path / "there").mkdir()
    output = refused(*arguments, "there")
    assert "error: there: this already exists\n  hint: nothing is overwritten: choose a new name" in output


def test_a_full_disk_leaves_no_half_exported_file(refused, command, published, monkeypatch):
    assert command("import", "robustok", published, "imported", "--set", "num_heads=2")[0] == 0
    monkeypatch.setattr(robustok_core.runs.files, "save_file", half)
    output = refused("export", "robustok", "imported", "again.safetensors", code=1)
    assert "error: again.safetensors: cannot write: No space left on device" in output
    assert not Path("again.safetensors").exists()
    assert leftovers(Path()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "robustok", "no.pt", "out"], "error: no.pt: there is no such file"),
        (["import", "robustokk", "published.safetensors", "out"], "hint: did you mean 'robustok'?"),
        (
            ["import", "robustok", "published.safetensors", "out", "--set", "heads=2"],
            "error: robustok.heads: unknown key 'heads'",
        ),
        (["export", "robustok", "nowhere", "out"], "error: nowhere: there is no such run or artifact"),
        (["export", "robustok", ".", "out"], "error: .: this is not a run folder"),
    ],
)
def test_mistakes_of_import_and_export_are_one_message(refused, published, arguments, words):
    assert words in refused(*arguments)
    assert not Path("out").exists()


def test_a_format_that_cannot_hold_a_tokenizer_is_refused_with_those_that_can(refused, command, published, trained):
    output = refused("export", "titok", trained.folder, "out.pt")
    assert "the published TiTok format holds only titok tokenizers" in output
    assert (
        "hint: this tokenizer is conv_vq with the quantizer vq; no importer's format holds it; `robustok push" in output
    )
    assert command("import", "robustok", published, "imported", "--set", "num_heads=2")[0] == 0
    output = refused("export", "titok", "imported", "out.pt")
    assert "this tokenizer is vit_vq with the quantizer vq; formats that hold it: robustok" in output
    assert not Path("out.pt").exists()
