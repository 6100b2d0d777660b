"""A file is recognised by the names of its weights."""

from __future__ import annotations

import pytest
from safetensors.torch import save_file

from published import PARITY, Case, import_file
from readers import IMPORTERS
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_hub.known_files import NAMES, likely_importers

REGISTRY = load_registry()
#: Importers that read the same names.
ALIKE = {"taming_vq": ["taming_vq", "ibq"], "ibq": ["taming_vq", "ibq"], "dit": ["dit", "sit"]}


def test_every_importer_has_names():
    assert set(REGISTRY.names("importer")) == set(NAMES)


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_published_file_is_recognised(name):
    importer = IMPORTERS[name]["use"]
    assert likely_importers(Case(name).weights) == ALIKE.get(importer, [importer])


def test_every_parity_file_of_weights_is_recognised():
    files = [file.stem for file in PARITY.glob("*.json") if not file.stem.startswith("perturb")]
    assert len(files) > len(IMPORTERS) / 2
    assert not [name for name in files if not likely_importers(Case(name).weights)]


@pytest.mark.parametrize(
    ("name", "more", "importers"),
    [
        ("sit2d_a", {}, ["dit", "sit"]),
        ("sit1d_qk_a", {}, ["sit"]),
        ("lightningdit_qk_a", {}, ["lightningdit"]),
        ("sit2d_a", {"feat_rope.freqs_cos", "feat_rope.freqs_sin", "blocks.0.norm1.weight"}, ["lightningdit"]),
    ],
)
def test_variants_of_diffusion_transformers_are_recognised(name, more, importers):
    assert likely_importers({*Case(name).weights, *more}) == importers


def test_foreign_names_are_not_recognised():
    assert likely_importers(["conv1.weight", "fc.bias"]) == []


def test_a_refusal_names_the_importer_that_would_read_the_file(tmp_path):
    save_file(Case("titok_a").weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="this is not a LlamaGen tokenizer") as caught:
        import_file("llamagen_vq", tmp_path / "file.safetensors")
    assert caught.value.hint == "it looks like a file of the importer titok"


def test_a_damaged_file_is_not_said_to_be_of_the_importer_that_refuses_it(tmp_path):
    weights = dict(Case("titok_a").weights)
    del weights["decoder.ffn.0.weight"]
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=r"it lacks decoder\.ffn\.0\.weight") as caught:
        import_file("titok", tmp_path / "file.safetensors")
    assert "weights are called" in caught.value.hint
