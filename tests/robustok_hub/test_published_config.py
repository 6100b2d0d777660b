"""What config.json beside published weights says is used where the importer's options say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

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
    assert report["l2_normalise"] == "false: as config.json says"
    table, report = read("titok", "titok_rgb_a", tmp_path, **HEADS, l2_normalise=True)
    assert report["l2_normalise"] == "true: the importer's option"


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


def test_maetok_says_what_is_known_of_the_statistics_of_its_latents(tmp_path):
    (alone := tmp_path / "alone").mkdir()
    report = read("maetok", "maetok_a", alone, num_heads=4)[1]
    assert report["latents"].startswith(
        "not normalised; their mean and deviation are unknown (no vq_mean and vq_std in "
    )
    write(tmp_path, {"config": {"vq_mean": 0.25, "vq_std": 2}})
    report = read("maetok", "maetok_a", tmp_path, num_heads=4)[1]
    assert "takes vq_mean 0.25 and vq_std 2.0" in report["latents"]


def test_sit_takes_the_statistics_in_the_configuration_of_the_tokenizer(tmp_path):
    write(tmp_path, {"config": {"vq_mean": 0.25, "vq_std": 2}})
    (beside := tmp_path / "sit").mkdir()
    place = str(tmp_path / "config.json")
    _, generator, report = Case("sit1d_a").load("sit", beside, num_heads=4, statistics=place)
    assert (generator.latent_mean == 0.25).all()
    assert (generator.latent_std == 2.0).all()
    assert report["statistics"] == f"vq_mean 0.25 and vq_std 2.0 of {place}"
    assert "see the option statistics" in read("sit", "sit1d_a", beside, num_heads=4)[1]["statistics"]


@pytest.mark.parametrize(
    ("content", "words"),
    [({"vq_mean": 0.0}, "does not have vq_mean and vq_std"), ({"vq_mean": 0, "vq_std": 0}, "must be positive")],
)
def test_sit_refuses_a_configuration_without_usable_statistics(content, words, tmp_path):
    write(tmp_path, content)
    (beside := tmp_path / "sit").mkdir()
    with pytest.raises(RobustokError, match=words) as caught:
        read("sit", "sit1d_a", beside, num_heads=4, statistics=str(tmp_path / "config.json"))
    assert caught.value.where == str(tmp_path / "config.json")
    with pytest.raises(RobustokError, match="No such file") as caught:
        read("sit", "sit1d_a", beside, num_heads=4, statistics=str(tmp_path / "nowhere.json"))


# --- YAML of taming-transformers and its descendants ----------------------------------------------

DDCONFIG = {"ch": 8, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [4], "z_channels": 10}
TAMING = {"ddconfig": {**DDCONFIG, "resolution": 16, "double_z": False}, "n_embed": 64, "embed_dim": 10}


def write_yaml(folder: Path, params: dict[str, object], name: str = "model.yaml") -> None:
    content = {"model": {"target": "taming.models.vqgan.VQModel", "base_learning_rate": 4.5e-06, "params": params}}
    (folder / name).write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("name", ["model.yaml", "config.yaml", "weights.yaml"])
@pytest.mark.parametrize(("importer", "case"), [("taming_vq", "taming_vq_a"), ("ibq", "ibq_a")])
def test_the_size_of_the_images_is_the_resolution_in_a_yaml_file(importer, case, name, tmp_path):
    write_yaml(tmp_path, TAMING, name)
    table, report = read(importer, case, tmp_path, norm_groups=4)
    assert table["image_size"] == 16
    assert report[name] == "image_size = 16"
    assert read(importer, case, tmp_path, norm_groups=4, image_size=32)[0]["image_size"] == 32


def test_everything_in_which_a_yaml_file_contradicts_the_weights_is_in_one_message(tmp_path):
    wrong = {**DDCONFIG, "ch": 128, "ch_mult": [1, 1, 2, 2, 4], "attn_resolutions": [8], "resolution": 16}
    write_yaml(tmp_path, {**TAMING, "ddconfig": wrong, "n_embed": 1024})
    with pytest.raises(RobustokError) as caught:
        read("taming_vq", "taming_vq_a", tmp_path, norm_groups=4)
    assert caught.value.where == str(tmp_path / "model.yaml")
    assert caught.value.what.endswith(
        "ch is 128 here and 8 in the weights; ch_mult is [1, 1, 2, 2, 4] here and [1, 2, 2] in the weights; "
        "attn_resolutions is [8] here and [4] in the weights; n_embed is 1024 here and 64 in the weights"
    )


def test_of_the_configuration_of_a_transformer_the_part_of_its_tokenizer_counts(tmp_path):
    first, condition = {"params": TAMING}, {"params": {"n_embed": 7}}
    write_yaml(tmp_path, {"embed_dim": 3, "cond_stage_config": condition, "first_stage_config": first})
    assert read("taming_vq", "taming_vq_a", tmp_path, norm_groups=4)[0]["image_size"] == 16


def test_a_resolution_that_is_not_that_of_the_images_is_not_read(tmp_path):
    ddconfig = {"ch": 8, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "resolution": 128, "z_channels": 7}
    write_yaml(tmp_path, {"ddconfig": ddconfig, "n_embed": 128, "embed_dim": 7})
    assert read("open_magvit2", "open_magvit2_a", tmp_path, norm_groups=4)[0]["image_size"] == 256
    write_yaml(tmp_path, {"ddconfig": {**ddconfig, "ch_mult": [1, 2]}, "n_embed": 64})
    with pytest.raises(RobustokError, match=r"ch_mult is \[1, 2\] here .*; n_embed is 64 here and 128 in the weights"):
        read("open_magvit2", "open_magvit2_a", tmp_path, norm_groups=4)


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.getcwd []", "a: &a [*a]\nb: : c", "\x00"])
def test_a_yaml_file_that_cannot_be_read_is_one_message_and_runs_no_code(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RobustokError, match="cannot be read") as caught:
        read("taming_vq", "taming_vq_a", tmp_path, norm_groups=4)
    assert caught.value.where == str(tmp_path / "config.yaml")


def test_an_outer_value_counts_even_behind_an_inner_one(tmp_path):
    write(tmp_path, {"first": {"inner": {"tau": 2.0}}, "second": {"tau": 1.0}})
    assert PublishedConfig.beside(tmp_path / "w.pt").get("tau", float) == 1.0


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


#: A fixture, its importer and options, what a configuration says of it, and what the weights say instead.
CONTRADICTIONS = [
    ("titok_rgb_a", "titok", HEADS, {"vit_enc_patch_size": 16}, "vit_enc_patch_size is 16 here and 4"),
    ("titok_rgb_a", "titok", HEADS, {"dataset": {"crop_size": 256}}, "crop_size is 256 here and 16"),
    ("softvq_a", "softvq", {"num_heads": 4}, {"num_codebooks": 4}, "num_codebooks is 4 here and 2"),
    ("softvq_a", "softvq", {"num_heads": 4}, {"codebook_size": 8192}, "codebook_size is 8192 here and 24"),
    ("maetok_a", "maetok", {"num_heads": 4}, {"use_rope": False}, "use_rope False"),
    ("sit1d_a", "sit", {"num_heads": 4}, {"num_classes": 1000}, "num_classes is 1000 here and 10"),
    ("sit1d_a", "sit", {"num_heads": 4}, {"in_channels": 32}, "in_channels is 32 here and 8"),
    ("sit1d_a", "sit", {"num_heads": 4}, {"qk_norm": True}, "qk_norm is True here and False"),
    ("sit1d_qk_a", "sit", {}, {"num_heads": 16}, "num_heads is 16 here and 2"),
    ("sit2d_a", "sit", {"num_heads": 4}, {"patch_size": 4}, "patch_size is 4 here and 2"),
    ("sit2d_a", "sit", {"num_heads": 4}, {"path_type": "VP"}, "path_type VP is not supported"),
    ("lightningdit_a", "lightningdit", {}, {"model": {"use_qknorm": True}}, "use_qknorm is True here and False"),
    ("lightningdit_a", "lightningdit", {}, {"use_rmsnorm": False}, "use_rmsnorm is False here and True"),
    ("lightningdit_a", "lightningdit", {}, {"use_swiglu": False}, "use_swiglu is False here and True"),
    ("lightningdit_a", "lightningdit", {}, {"use_rope": False}, "use_rope is False here and True"),
    ("lightningdit_a", "lightningdit", {}, {"in_chans": 32}, "in_chans is 32 here and 8"),
]


@pytest.mark.parametrize(
    ("name", "importer", "options", "config", "message"),
    CONTRADICTIONS,
    ids=[f"{importer}-{message.split()[0]}" for _, importer, _, _, message in CONTRADICTIONS],
)
def test_whatever_contradicts_the_weights_is_refused(name, importer, options, config, message, tmp_path):
    write(tmp_path, config)
    with pytest.raises(RobustokError, match=message) as caught:
        read(importer, name, tmp_path, **options)
    assert caught.value.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("num_classes", [10, 11], ids=["with a row for no class", "without"])
def test_a_table_of_classes_may_have_a_row_for_no_class(num_classes, tmp_path):
    write(tmp_path, {"num_classes": num_classes, "in_channels": 8, "qk_norm": False, "num_heads": 4})
    assert read("sit", "sit1d_a", tmp_path)[0]["num_heads"] == 4


def test_gvp_is_the_cosine_path(tmp_path):
    write(tmp_path, {"transport": {"path_type": "GVP"}})
    assert read("sit", "sit2d_a", tmp_path, num_heads=4)[0]["path"] == "cosine"
