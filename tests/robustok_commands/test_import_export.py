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


@pytest.mark.parametrize(
    "arguments", [["import", "robustok", "published.safetensors"], ["export", "robustok", "there"]]
)
def test_import_and_export_overwrite_nothing(refused, published, tmp_path, arguments):
    (tmp_path / "there").mkdir()
    output = refused(*arguments, "there")
    assert "error: there: this already exists\n  hint: nothing is overwritten: name a new f" in output


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
        (["import", "robustok", "published.safetensors", "out", "--set", "heads=2"], "unknown key 'heads'"),
        (["export", "robustok", "nowhere", "out"], "error: nowhere: there is no such run or artifact"),
        (["export", "robustok", ".", "out"], "error: .: this is not a run folder"),
    ],
)
def test_mistakes_of_import_and_export_are_one_message(refused, published, arguments, words):
    assert words in refused(*arguments)
    assert not Path("out").exists()
