"""A file is recognised by the names of its weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from project import registry_with
from published import PARITY, Case, import_file
from readers import IMPORTERS
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.components import read_component
from robustok_core.runs.loading import read_published, save_imported
from robustok_hub.auto import importer_of
from robustok_hub.known_files import FORMATS, NAMES, likely_importers

REGISTRY = load_registry()
#: Importers that read the same names.
ALIKE = {"taming_vq": ["taming_vq", "ibq"], "ibq": ["taming_vq", "ibq"], "dit": ["dit", "sit"]}


def test_every_importer_has_names():
    assert set(REGISTRY.names("importer")) == {name for name, _ in NAMES} | {"auto"} == FORMATS.keys() | {"auto"}


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
        ("robustok_tokenizer_nope_a", {}, ["robustok"]),
        ("sit2d_a", {}, ["dit", "sit"]),
        ("sit1d_qk_a", {}, ["sit"]),
        ("lightningdit_qk_a", {}, ["lightningdit"]),
        ("sit2d_a", {"feat_rope.freqs_cos", "feat_rope.freqs_sin", "blocks.0.norm1.weight"}, ["lightningdit"]),
    ],
)
def test_variants_of_a_format_are_recognised(name, more, importers):
    assert likely_importers({*Case(name).weights, *more}) == importers


def test_foreign_names_are_not_recognised():
    assert likely_importers(["conv1.weight", "fc.bias"]) == []


def test_a_refusal_names_the_importer_that_would_read_the_file(tmp_path):
    save_file(Case("titok_a").weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="this is not a LlamaGen tokenizer") as caught:
        import_file("llamagen_vq", tmp_path / "file.safetensors")
    assert caught.value.hint == "it looks like a file of the importer titok"


@pytest.mark.parametrize(
    ("name", "importer", "other"),
    [
        ("gigatok_a", "llamagen_vq", "gigatok"),
        ("taming_vq_a", "ldm_vae", "taming_vq or ibq"),
        ("softvq_a", "maetok", "softvq"),
    ],
)
def test_a_file_with_the_weights_of_a_format_and_those_of_another_is_of_the_other(name, importer, other, tmp_path):
    save_file(Case(name).weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="whose weights it has among others") as caught:
        import_file(importer, tmp_path / "file.safetensors")
    assert caught.value.hint == f"it looks like a file of the importer {other}"


@pytest.mark.parametrize(
    ("name", "missing"),
    [("titok_a", "decoder.ffn.0.weight"), ("gigatok_a", "decoder.conv_in.weight"), ("ibq_a", "encoder.conv_in.weight")],
)
def test_a_damaged_file_is_not_said_to_be_of_the_importer_that_refuses_it(name, missing, tmp_path):
    weights = dict(Case(name).weights)
    del weights[missing]
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=f"it lacks {missing}") as caught:
        import_file(IMPORTERS[name]["use"], tmp_path / "file.safetensors")
    assert "weights are called" in caught.value.hint


# --- the importer `auto` --------------------------------------------------------------------------


def automatic(file, registry=REGISTRY, **options):
    """What `auto` reads in a file."""
    return read_published(registry.spec("importer", {"use": "auto", "options": options}), file, registry)


@pytest.mark.parametrize("name", [name for name in IMPORTERS if IMPORTERS[name]["use"] not in ALIKE])
def test_auto_reads_a_file_as_the_right_importer_does(name, tmp_path):
    save_file(Case(name).weights, file := tmp_path / "file.safetensors")
    options = dict(IMPORTERS[name])
    right = read_published(REGISTRY.spec("importer", options), file, REGISTRY)
    importer = options.pop("use")
    found = automatic(file, **options)
    assert found.report == {"importer": importer, **right.report}
    assert found.table == right.table
    assert found.kind == REGISTRY.classes("importer")[importer].makes
    assert found.opponents.keys() == right.opponents.keys()


def test_auto_reads_the_tokenizer_in_the_checkpoint_of_a_whole_model(tmp_path):
    weights = {f"first_stage_model.{name}": value for name, value in Case("vavae_a").weights.items()}
    save_file(weights, tmp_path / "whole.safetensors")
    assert automatic(tmp_path / "whole.safetensors", image_size=16, norm_groups=4).report["importer"] == "ldm_vae"


def test_auto_asks_where_names_cannot_tell(tmp_path):
    save_file(Case("ibq_a").weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="fit several importers: taming_vq, ibq"):
        automatic(tmp_path / "file.safetensors")


def test_auto_takes_the_importer_of_a_known_file_where_names_cannot_tell(tmp_path):
    save_file(Case("ibq_a").weights, tmp_path / "imagenet256_1024.ckpt")
    options = {"image_size": 16, "norm_groups": 4}
    assert automatic(tmp_path / "imagenet256_1024.ckpt", **options).report["importer"] == "ibq"
    save_file(Case("sit2d_a").weights, tmp_path / "SiT-XL-2-256x256.pt")
    with pytest.raises(RobustokError, match="several importers: dit, sit"):
        importer_of((tmp_path / "SiT-XL-2-256x256.pt").rename(tmp_path / "mine.pt"), REGISTRY)
    save_file(Case("sit2d_a").weights, tmp_path / "SiT-XL-2-256x256.pt")
    assert importer_of(tmp_path / "SiT-XL-2-256x256.pt", REGISTRY) == "sit"


def test_auto_knows_the_files_of_a_third_party_by_the_names_that_its_importer_gives(tmp_path):
    theirs = type("Theirs", (REGISTRY.classes("importer")["rar"],), {"recognised_by": ("theirs",)})
    save_file({"theirs": torch.ones(1)}, file := tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="this is not a RAR generator"):
        automatic(file, registry_with(importer={"theirs": theirs}))
    with pytest.raises(RobustokError, match="no importer is known by the names of these 1 weights: theirs"):
        automatic(file)


def test_the_command_import_auto_writes_the_artifact(command, tmp_path):
    save_file(Case("rar_a").weights, tmp_path / "file.safetensors")
    code, output, errors = command("import", "auto", "file.safetensors", "out")
    assert code == 0, errors
    assert output.startswith("importer: rar\n")
    assert read_component(tmp_path / "out").kind == "generator"
    save_file(Case("titok_a").weights, tmp_path / "file.safetensors")
    heads = ("--set", "encoder_num_heads=4", "--set", "decoder_num_heads=4")
    assert command("import", "auto", "file.safetensors", "two", *heads)[0] == 0
    assert read_component(tmp_path / "two").table["encoder"]["num_heads"] == 4


def test_auto_cannot_export(refused, tmp_path):
    save_imported(automatic(_saved("rar_a", tmp_path)), tmp_path / "in")
    assert "the importer 'auto' cannot export" in refused("export", "auto", "in", "out.safetensors")


def _saved(name, folder):
    save_file(Case(name).weights, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"
