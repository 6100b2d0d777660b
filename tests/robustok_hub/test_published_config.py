"""What config.json beside published weights says is used where the importer's options say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project import Project, recipe_of
from published import Case
from robustok_core import RobustokError
from robustok_hub.published_config import PublishedConfig

HEADS = {"encoder_num_heads": 4, "decoder_num_heads": 4}
TITOK = {"codebook_size": 48, "token_size": 8, "num_latent_tokens": 6, "vit_enc_model_size": "small"}


def write(folder: Path, content: object) -> None:
    (folder / "config.json").write_text(json.dumps(content))


def read(importer: str, name: str, folder: Path, **options: object):
    table, _, report = Case(name).load(importer, folder, **options)
    return table, report


def test_titok_normalises_as_its_configuration_says_unless_the_option_does(tmp_path):
    assert read("titok", "titok_rgb_a", tmp_path, **HEADS)[0]["quantizer"]["l2_normalise"] is True
    write(tmp_path, {"model": {"vq_model": {**TITOK, "use_l2_norm": False}}, "dataset": {}})
    table, report = read("titok", "titok_rgb_a", tmp_path, **HEADS)
    assert table["quantizer"]["l2_normalise"] is False
    assert report["l2_normalise"] == "False: as config.json says"
    table, report = read("titok", "titok_rgb_a", tmp_path, **HEADS, l2_normalise=True)
    assert report["l2_normalise"] == "True: the importer's option"


def test_a_configuration_of_other_weights_is_refused(tmp_path):
    write(tmp_path, {"model": {"vq_model": {**TITOK, "num_latent_tokens": 32}}})
    with pytest.raises(RobustokError, match="num_latent_tokens is 32 here and 6 in the weights") as caught:
        read("titok", "titok_rgb_a", tmp_path, **HEADS)
    assert caught.value.where == str(tmp_path / "config.json")


def test_softvq_takes_temperature_norm_and_positions_from_its_configuration(tmp_path):
    config = {"tau": 1, "codebook_l2_norm": False, "use_ape": True, "use_rope": False, "rope_mixed": False}
    write(tmp_path, {"config": {**config, "num_latent_tokens": 8, "codebook_embed_dim": 6}})
    table, report = read("softvq", "softvq_a", tmp_path, num_heads=4)
    assert (table["soft_codebook"]["temperature"], table["soft_codebook"]["l2_normalise"]) == (1.0, False)
    assert table["decoder_absolute_positions"] is True
    assert report["config.json"] == "decoder_absolute_positions = True, temperature = 1.0, l2_normalise = False"
    table, _ = read("softvq", "softvq_a", tmp_path, num_heads=4, temperature=0.5)
    assert (table["soft_codebook"]["temperature"], table["soft_codebook"]["l2_normalise"]) == (0.5, False)


def test_maetok_turns_along_the_axes_if_its_configuration_says_so(tmp_path):
    write(tmp_path, {"use_rope": True, "rope_mixed": False, "rope_theta": 100.0, "use_ape": False})
    table, _ = read("maetok", "maetok_ape_a", tmp_path, num_heads=4)
    assert (table["rotary"], table["rotary_base"], table["decoder_absolute_positions"]) == ("axial", 100.0, False)


def test_a_configuration_that_contradicts_the_positions_of_the_weights_is_refused(tmp_path):
    write(tmp_path, {"use_rope": True, "rope_mixed": True})
    with pytest.raises(RobustokError, match=r"rope_mixed True do not fit the weights, which have no encoder\.freqs"):
        read("maetok", "maetok_ape_a", tmp_path, num_heads=4)
    write(tmp_path, {"use_rope": False, "rope_mixed": False})
    with pytest.raises(RobustokError, match=r"which have encoder\.freqs"):
        read("maetok", "maetok_a", tmp_path, num_heads=4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "cannot be read"), ('{"use_l2_norm": "yes"}', "use_l2_norm must be bool, found 'yes'")],
)
def test_a_damaged_configuration_is_one_message(text, complaint, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RobustokError, match=complaint) as caught:
        read("titok", "titok_rgb_a", tmp_path, **HEADS)
    assert caught.value.where == str(tmp_path / "config.json")


def test_the_outermost_value_counts_and_other_content_is_passed_over(tmp_path):
    write(tmp_path, {"model": {"tau": 2.0, "list": [1]}, "tau": 1.0, "name": None})
    assert PublishedConfig.beside(tmp_path / "w.pt").get("tau", float) == 1.0
    write(tmp_path, [1, 2])
    assert not PublishedConfig.beside(tmp_path / "w.pt").values


def test_a_changed_configuration_is_loaded_anew(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    case = Case("titok_rgb_a")
    case.load("titok", files, **HEADS)

    def normalises() -> bool:
        load = {"path": str(files / "weights.safetensors"), "importer": {"use": "titok", **HEADS}}
        table = recipe_of(["evaluate_tokenizer"], tokenizer=None, perturbation=None)
        table["load"] = {"tokenizer": load}
        table["data"]["image_size"] = 16
        table["stage"][0]["metrics"] = {"psnr": {"use": "psnr"}}
        project = Project.of(table, tmp_path / "run").run()
        return project.component("tokenizer").config.quantizer.config.l2_normalise

    assert normalises() is True
    write(files, {"use_l2_norm": False})
    assert normalises() is False
