"""MAETok's tokenizers compute what the published code computes, read from published-style files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.files import write_tensors
from robustok_core.values.latents import Latents
from robustok_tokenizers.gaussian_posterior import GaussianPosterior

PARITY = Path(__file__).parents[1] / "parity"
NAMES = ["maetok_a", "maetok_ape_a", "maetok_kl_a"]
IN_VAIN = {"decoder.model.patch_embed.proj.weight", "decoder.model.patch_embed.proj.bias"}


class Case:
    """A parity file: its weights under the published names, inputs, outputs and tolerances."""

    def __init__(self, name: str) -> None:
        self.about = json.loads((PARITY / f"{name}.json").read_text())
        tensors = load_file(PARITY / f"{name}.safetensors")
        self.weights = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
        self.inputs = {key[3:]: value for key, value in tensors.items() if key.startswith("in.")}
        self.outputs = {key[4:]: value for key, value in tensors.items() if key.startswith("out.")}

    def check(self, **actual: torch.Tensor) -> None:
        assert actual.keys() == self.outputs.keys(), "every output is compared"
        for name, value in actual.items():
            limits = self.about["tolerance"][name]
            torch.testing.assert_close(value, self.outputs[name], atol=limits["atol"], rtol=limits["rtol"])


def load(name: str, folder: Path, extra: dict[str, torch.Tensor] | None = None, **options: object):
    case = Case(name)
    save_file({**case.weights, **(extra or {})}, folder / "model.safetensors")
    registry = load_registry()
    options = {"num_heads": case.about["config"]["num_heads"], **options}
    importer = registry.build("importer", {"use": "maetok", **options})
    return case, *importer.load(folder / "model.safetensors", registry)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_the_published_code_computes(name, tmp_path):
    case, _, tokenizer, _ = load(name, tmp_path)
    images = case.inputs["image"]
    latents, more = tokenizer.encode(images), {}
    if "kl" in case.outputs:
        posterior = GaussianPosterior.of_moments(tokenizer.quant_conv(tokenizer.encoder(images)))
        more = {"logvar": posterior.log_variance, "std": posterior.std, "kl": posterior.divergence().sum(1)}
    case.check(
        encoder_tokens=tokenizer.encoder(images),
        latent=latents.vectors,
        recon=tokenizer.decode(latents),
        decoded_given=tokenizer.decode(Latents(vectors=case.inputs["latent"])),
        **more,
    )


@pytest.mark.parametrize("name", NAMES)
def test_its_size_is_read_from_its_weights(name, tmp_path):
    case, table, tokenizer, _ = load(name, tmp_path)
    config = case.about["config"]
    assert table["image_size"] == tokenizer.image_size == config["img_size"]
    assert (table["patch_size"], table["width"], table["depth"]) == (4, config["embed_dim"], config["depth"])
    assert (tokenizer.space.num_tokens, tokenizer.space.width) == (config["num_latent_tokens"], config["latent_dim"])
    assert tokenizer.space.grid is None
    assert table["rotary"] == ("mixed" if config["rope_mixed"] else "none")
    assert table["decoder_absolute_positions"] is config["use_ape"]
    assert table["decoder_cls_token"] is config["dec_cls_token"]
    assert (table["mask_largest"] > 0) == (config["enc_token_drop"] > 0)
    assert ("kl_weight" in table) == (name == "maetok_kl_a")
    assert not tokenizer.training
    rebuilt = load_registry().build("tokenizer", table)
    assert rebuilt.state_dict().keys() == tokenizer.state_dict().keys()


def test_weights_that_only_training_needs_are_dropped_and_reported(tmp_path):
    extra = {
        "decoder_hog.mask_token": torch.ones(1, 1, 8),
        "post_quant_conv_dino.weight": torch.ones(8, 8),
        "to_pixel_clip.model.weight": torch.ones(8, 8),
        "repa_model.blocks.0.weight": torch.ones(2),
        "repa_model.norm.weight": torch.ones(2),
    }
    _, _, _, report = load("maetok_a", tmp_path, extra)
    assert report["decoder_hog.*"] == "dropped 1 weights: the target hog"
    assert report["post_quant_conv_dino.*"] == "dropped 1 weights: the target dino"
    assert report["to_pixel_clip.*"] == "dropped 1 weights: the target clip"
    assert report["repa_model.*"] == "dropped 2 weights: a teacher"
    assert {"encoder.freqs_t_x", "decoder.freqs_t_y", "decoder.model.pos_embed", *IN_VAIN} <= report.keys()
    assert json.loads(json.dumps(report)) == report


def test_other_weights_are_refused_by_their_published_names(tmp_path):
    with pytest.raises(RobustokError, match=r"unexpected mystery\.weight"):
        load("maetok_a", tmp_path, {"mystery.weight": torch.ones(1)})
    with pytest.raises(RobustokError, match="patches are in an order"):
        load("maetok_a", tmp_path, {"encoder.freqs_t_x": torch.arange(16.0).flip(0)})
    with pytest.raises(RobustokError, match=r"wrong shape decoder\.to_pixel\.model\.bias"):
        load("maetok_a", tmp_path, {"decoder.to_pixel.model.bias": torch.ones(3)})


def test_another_model_is_refused_in_one_line(tmp_path):
    save_file({"encoder.conv_in.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    registry = load_registry()
    with pytest.raises(RobustokError, match=r"not a MAETok tokenizer: it lacks encoder\.latent_tokens"):
        registry.build("importer", {"use": "maetok"}).load(tmp_path / "other.safetensors", registry)


@pytest.mark.parametrize("name", NAMES)
def test_export_is_the_inverse_of_import_except_for_unused_weights(name, tmp_path):
    case, _, tokenizer, report = load(name, tmp_path)
    exported = load_registry().build("importer", {"use": "maetok"}).export(tokenizer)
    assert case.weights.keys() - exported.keys() == report.keys() - {"weights", "latents"}
    assert exported.keys() <= case.weights.keys()
    assert all(torch.equal(exported[key], case.weights[key]) for key in exported)


@pytest.mark.parametrize("rotary", ["none", "mixed", "axial"])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("cls_token", [True, False])
def test_exported_weights_can_be_imported_again(rotary, absolute, cls_token, tmp_path):
    registry = load_registry()
    sizes = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "num_heads": 2, "num_latent_tokens": 3}
    positions = {"rotary": rotary, "decoder_absolute_positions": absolute, "decoder_cls_token": cls_token}
    tokenizer = registry.build("tokenizer", {"use": "mae_tok", **sizes, **positions})
    exported = registry.build("importer", {"use": "maetok"}).export(tokenizer)
    if absolute:  # published positions always have a row for the class token
        assert exported["decoder.model.pos_embed"].shape == (1, 1 + 16, 16)
    write_tensors(tmp_path / "again.safetensors", exported)
    options = {"num_heads": 2, "axial_rotary": rotary == "axial", "decoder_absolute_positions": absolute}
    importer = registry.build("importer", {"use": "maetok", **options})
    table, again, _ = importer.load(tmp_path / "again.safetensors", registry)
    assert positions.items() <= table.items()
    weights = tokenizer.state_dict()
    assert again.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("maetok_a", {"axial_rotary": True}, r"axial_rotary .*mixed \(encoder\.freqs\)"),
        ("maetok_a", {"rotary_base": 100.0}, "rotary_base .*along the axes"),
        ("maetok_ape_a", {"rotary_base": 100.0}, "rotary_base .*along the axes"),
        ("maetok_ape_a", {"mask": [0.4, 0.6]}, "mask .*no mask token"),
    ],
)
def test_an_option_without_effect_for_a_file_is_refused(name, options, reason, tmp_path):
    with pytest.raises(RobustokError, match=reason) as caught:
        load(name, tmp_path, **options)
    assert caught.value.where == str(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maetok_a", {"axial_rotary": False, "rotary_base": 10.0}),
        ("maetok_ape_a", {"mask": [0.0, 0.0], "rotary_base": 10.0}),
    ],
)
def test_an_option_equal_to_the_default_is_accepted(name, options, tmp_path):
    assert load(name, tmp_path, **options)[1] == load(name, tmp_path)[1]


def test_the_mask_of_further_training_is_the_option_or_the_published_one(tmp_path):
    for options, mask in (({}, (0.4, 0.6)), ({"mask": [0.2, 0.3]}, (0.2, 0.3))):
        table = load("maetok_a", tmp_path, **options)[1]
        assert (table["mask_smallest"], table["mask_largest"]) == mask


def test_another_component_is_not_exported():
    registry = load_registry()
    with torch.device("meta"):
        other = registry.build("tokenizer", {"use": "kl_vae"})
    with pytest.raises(RobustokError, match="holds only mae_tok tokenizers"):
        registry.build("importer", {"use": "maetok"}).export(other)
