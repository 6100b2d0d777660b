"""Tokenizers in the layout of diffusers: diffusers computes with them what we compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import robustok_core.runs.files
from full_disk import half
from published import Case, export, import_file
from robustok.testing import check_component
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.components import save_component

REGISTRY = load_registry()
LEVELS = {"image_size": 16, "channels": 8, "norm_groups": 4, "num_res_blocks": 1, "channel_multipliers": [1, 2]}
VQ = {"use": "vq", "codebook_size": 16, "width": 3, "l2_normalise": False}
KL = {"use": "kl_vae", "z_channels": 4, "width": 4, "double_z": True}
#: Tokenizers that diffusers has, in all variations of their networks.
TABLES = {
    "as published": LEVELS | KL,
    "Stable Diffusion's": LEVELS | KL | {"attention_levels": []},
    "deeper": LEVELS | KL | {"channel_multipliers": [1, 1, 3], "num_res_blocks": 2, "attention_levels": [0, 2]},
    "no attention": LEVELS | KL | {"attention": False},
    "FLUX's": LEVELS | KL | {"latent_convs": False},
    "discrete": LEVELS | {"use": "conv_vq", "z_channels": 5, "quantizer": VQ},
}
every = pytest.mark.parametrize("name", TABLES)


def tokenizer(name: str):
    torch.manual_seed(0)
    return REGISTRY.build("tokenizer", TABLES[name]).eval()


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def written(component: Any, folder: Path, **options: Any) -> Any:
    """The model that diffusers reads from the files that an export writes."""
    import diffusers

    importer = REGISTRY.build("importer", {"use": "diffusers", **options})
    configuration = importer.configuration(component)
    (folder / "config.json").write_text(json.dumps(configuration))
    save_file(dict(importer.export(component)), folder / "diffusion_pytorch_model.safetensors")
    return getattr(diffusers, configuration["_class_name"]).from_pretrained(folder).eval()


@torch.no_grad()
@every
def test_diffusers_computes_what_we_compute(name, tmp_path):
    ours = tokenizer(name)
    theirs, latents = written(ours, tmp_path), ours.encode(images())
    side = ours.space.grid[0]
    vectors = latents.vectors.transpose(1, 2).unflatten(2, (side, side))
    if name == "discrete":
        hidden = theirs.encode(images()).latents
        decoded = theirs.decode(hidden).sample
        assert torch.equal(theirs.quantize(hidden)[2][2], latents.codes.flatten())
    else:
        torch.testing.assert_close(theirs.encode(images()).latent_dist.mode(), vectors, atol=1e-5, rtol=1e-4)
        decoded = theirs.decode(vectors).sample
    torch.testing.assert_close(decoded, ours.decode(latents), atol=1e-5, rtol=1e-4)


@every
def test_what_diffusers_writes_is_read(name, tmp_path):
    ours = tokenizer(name)
    written(ours, tmp_path).save_pretrained(tmp_path / "again")
    file = tmp_path / "again" / "diffusion_pytorch_model.safetensors"
    table, again, report = import_file("diffusers", file, image_size=16)
    assert table["norm_groups"] == 4, "from config.json"
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in ours.state_dict().items())
    assert "not applied" in report["scaling_factor"]
    exported = export("diffusers", again)
    assert exported.keys() == load_file(file).keys()


def test_names_of_attentions_from_older_versions_are_read(tmp_path):
    ours = tokenizer("as published")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = dict(export("diffusers", ours))
    for new, before in old.items():
        weights = {name.replace(f".{new}.", f".{before}."): value for name, value in weights.items()}
    save_file(weights, tmp_path / "old.safetensors")
    again = import_file("diffusers", tmp_path / "old.safetensors", image_size=16, norm_groups=4)[1]
    assert torch.equal(again.encoder.mid[1].q.weight, ours.encoder.mid[1].q.weight)


def test_an_importer_keeps_what_its_kind_promises(tmp_path):
    save_file(dict(export("diffusers", tokenizer("discrete"))), tmp_path / "file.safetensors")
    options = {"image_size": 16, "norm_groups": 4}
    check_component("importer", "diffusers", options, registry=REGISTRY, file=tmp_path / "file.safetensors")


def test_a_configuration_of_another_model_is_refused(tmp_path):
    written(tokenizer("as published"), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"latent_channels": 16, "norm_num_groups": 4}))
    with pytest.raises(RobustokError, match="latent_channels is 16 here and 4 in the weights"):
        import_file("diffusers", tmp_path / "diffusion_pytorch_model.safetensors", image_size=16)


@torch.no_grad()
@pytest.mark.parametrize("name", ["Stable Diffusion's", "discrete"])
def test_a_model_of_diffusers_that_was_trained_here_goes_back(name, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    written(tokenizer(name), tmp_path / "first", scaling_factor=0.5)
    loaded = REGISTRY.build(
        "tokenizer", {"use": "diffusers_vae", "source": str(tmp_path / "first"), "image_size": 16}
    ).eval()
    for parameter in loaded.decoder.parameters():
        parameter += 0.01
    model, latents = written(loaded, tmp_path / "second"), loaded.encode(images())
    hidden = loaded.vectors_of(latents).transpose(1, 2).unflatten(2, (8, 8))
    decoded = model.decode(hidden / loaded.scale, **({"force_not_quantize": True} if name == "discrete" else {})).sample
    torch.testing.assert_close(decoded, loaded.decode(latents), atol=1e-5, rtol=1e-4)


def test_the_command_writes_the_configuration_beside_the_weights(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    save_component(tmp_path / "tokenizer", "tokenizer", TABLES["as published"], tokenizer("as published"))
    (tmp_path / "out").mkdir()
    out = "out/diffusion_pytorch_model.safetensors"
    code, _, errors = command("export", "diffusers", "tokenizer", out, "--set", "scaling_factor=0.25")
    assert code == 0, errors
    configuration = json.loads(Path("out/config.json").read_text())
    assert (configuration["_class_name"], configuration["scaling_factor"]) == ("AutoencoderKL", 0.25)
    Path(out).unlink()
    code, _, errors = command("export", "diffusers", "tokenizer", out)
    assert code == 2
    assert "config.json: this already exists" in errors
    assert "another folder" in errors
    assert not Path(out).exists()


def test_a_full_disk_leaves_no_configuration_that_would_keep_the_next_export_from_being_written(
    command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    save_component(tmp_path / "tokenizer", "tokenizer", TABLES["as published"], tokenizer("as published"))
    with monkeypatch.context() as full:
        full.setattr(robustok_core.runs.files, "save_file", half)
        assert command("export", "diffusers", "tokenizer", "out/weights.safetensors")[0] == 1
    assert list(Path("out").iterdir()) == []
    assert command("export", "diffusers", "tokenizer", "out/weights.safetensors")[0] == 0


def test_a_configuration_that_appears_while_weights_are_written_stays(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    save_component(tmp_path / "tokenizer", "tokenizer", TABLES["as published"], tokenizer("as published"))

    def meanwhile(*arguments: Any) -> None:
        Path("out/config.json").write_text("theirs")
        save_file(*arguments)

    monkeypatch.setattr(robustok_core.runs.files, "save_file", meanwhile)
    code, _, errors = command("export", "diffusers", "tokenizer", "out/weights.safetensors")
    assert (code, Path("out/config.json").read_text()) == (1, "theirs")
    assert "what this command made is in out/config-2.json" in errors
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "config-2.json",
        "config.json",
        "weights.safetensors",
    ]


@pytest.mark.parametrize(
    "options",
    [
        LEVELS | KL | {"double_z": False},
        LEVELS | KL | {"width": 3},
        LEVELS | KL | {"channel_multipliers": [2, 1]},
        LEVELS | KL | {"decoder_channel_multipliers": [1, 1]},
        LEVELS | KL | {"middle": False},
        LEVELS | {"use": "conv_vq", "z_channels": 5, "quantizer": VQ | {"l2_normalise": True}},
        LEVELS | {"use": "maskgit_vq", "quantizer": VQ},
    ],
)
def test_tokenizers_that_diffusers_does_not_have_are_not_exported(options):
    component = REGISTRY.build("tokenizer", options)
    for call in ("export", "configuration"):
        with pytest.raises(RobustokError, match="diffusers has the architectures of"):
            getattr(REGISTRY.build("importer", {"use": "diffusers"}), call)(component)


def test_a_file_of_taming_transformers_is_refused(tmp_path):
    save_file(Case("taming_vq_a").weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="this is not a model of diffusers"):
        import_file("diffusers", tmp_path / "file.safetensors")
