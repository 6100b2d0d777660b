"""RAE's decoders compute what the published code computes, read from published-style files."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from published import Case, export, import_file, millions
from robustok.testing import check_component
from robustok_core import RobustokError, load_registry
from robustok_core.values.latents import LatentSpace

#: A ViT with the grid and width of the parity file; its mean and deviation are DINOv2's.
ENCODER = "robustok_test_rae_encoder"
OPTIONS = {"encoder": ENCODER, "weights": "random", "encoder_image_size": 12, "num_heads": 4}


@pytest.fixture(scope="module", autouse=True)
def tiny_encoder() -> None:
    from timm.models import register_model
    from timm.models.vision_transformer import VisionTransformer

    def robustok_test_rae_encoder(pretrained: bool = False, **options: object) -> VisionTransformer:
        sizes = {"img_size": 12, "patch_size": 3, "embed_dim": 20, "depth": 1, "num_heads": 2, "reg_tokens": 4}
        options = {name: value for name, value in options.items() if name in ("img_size", "num_classes")}
        network = VisionTransformer(**{**sizes, **options})
        network.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        return network

    robustok_test_rae_encoder.__module__ = __name__
    register_model(robustok_test_rae_encoder)


@pytest.fixture
def case() -> Case:
    return Case("rae_a")


def as_map(vectors: Tensor) -> Tensor:
    return rearrange(vectors, "b (h w) d -> b d h w", h=4)


def as_rows(latents: Tensor) -> Tensor:
    return rearrange(latents, "b d h w -> b (h w) d")


def load(case: Case, folder, **options):
    stored = {"mean": case.inputs["latent_mean"], "var": case.inputs["latent_var"]}
    torch.save(stored, folder / "stat.pt")
    return case.load("rae", folder, **{**OPTIONS, "statistics": str(folder / "stat.pt"), **options})


@torch.no_grad()
def test_it_computes_what_the_published_code_computes(case, tmp_path, monkeypatch):
    _, tokenizer, _ = load(case, tmp_path)
    read = []

    def features(images: Tensor) -> Tensor:
        """In place of the encoder, as in the parity file; behind a class token and registers."""
        read.append(images)
        return torch.cat([torch.full((len(images), 5, 20), torch.nan), case.inputs["features"]], dim=1)

    monkeypatch.setattr(tokenizer.encoder.net, "forward_features", features)
    latents = tokenizer.encode(2 * case.inputs["image"] - 1)
    logits = []
    tokenizer.pixel_decoder.to_pixels.register_forward_hook(lambda module, given, result: logits.append(result))
    tokenizer.pixel_decoder(case.inputs["features"])
    case.check(
        encoder_input=read[0],
        latent=as_map(latents.vectors),
        decoder_logits=logits[0],
        recon=(tokenizer.decode(latents) + 1) / 2,
        decoded_given=(tokenizer.decode_vectors(as_rows(case.inputs["latent"])) + 1) / 2,
    )


def test_its_sizes_are_read_from_its_weights(case, tmp_path):
    table, tokenizer, report = load(case, tmp_path)
    config = case.config
    assert (table["decoder_width"], table["decoder_depth"]) == (config["decoder_width"], config["decoder_layers"])
    assert (table["decoder_mlp_width"], table["image_size"]) == (config["decoder_mlp"], config["image"])
    assert tokenizer.space == LatentSpace(kind="continuous", num_tokens=16, width=20, grid=(4, 4))
    assert report["encoder"].startswith(f"{ENCODER}, not in the file")
    assert report["statistics"] == f"mean and var of {tmp_path / 'stat.pt'}"


def test_the_size_of_the_images_that_the_encoder_reads_follows_from_the_decoders_positions(case, tmp_path):
    table, tokenizer, _ = load(case, tmp_path, encoder_image_size=None)
    assert table["encoder_image_size"] == 12 == tokenizer.encoder.side * 3


def test_its_fixed_positions_are_ours(case, tmp_path):
    table, _, _ = load(case, tmp_path)
    ours = load_registry().build("tokenizer", table).pixel_decoder.pos_embed
    torch.testing.assert_close(ours, case.weights["decoder_pos_embed"], atol=1e-6, rtol=1e-5)


def test_statistics_stay_in_further_training_and_can_be_left_out(case, tmp_path):
    _, tokenizer, _ = load(case, tmp_path)
    before = tokenizer.statistics.mean.clone()
    tokenizer.train().encode(case.inputs["image"])
    assert torch.equal(tokenizer.statistics.mean, before)
    _, plain, report = load(case, tmp_path, statistics=None)
    assert not plain.statistics.mean.any()
    assert "not normalised" in report["statistics"]


def test_export_is_the_inverse_of_import(case, tmp_path):
    _, tokenizer, _ = load(case, tmp_path)
    assert case.same_weights(export("rae", tokenizer))
    check_component("importer", "rae", OPTIONS, file=tmp_path / "weights.safetensors")


def test_a_checkpoint_of_its_training_is_read_without_its_encoder(case, tmp_path):
    content = {f"decoder.{name}": value for name, value in case.weights.items()}
    content["encoder.model.embeddings.cls_token"] = torch.ones(1, 1, 20)
    torch.save({"model": {name: torch.zeros(1) for name in content}, "ema": content}, tmp_path / "stage1.pt")
    _, tokenizer, report = import_file("rae", tmp_path / "stage1.pt", **OPTIONS)
    assert torch.equal(tokenizer.last_layer, case.weights["decoder_pred.weight"])
    assert report["encoder.*"] == "dropped 1 weights: the frozen encoder, which comes from timm"


def test_all_wrong_weights_are_named_in_one_message(case, tmp_path):
    weights = dict(case.weights)
    del weights["decoder_layers.1.attention.attention.key.bias"]
    weights["decoder_norm.weight"] = torch.ones(3)
    weights["mystery.weight"] = torch.ones(1)
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError) as caught:
        import_file("rae", tmp_path / "file.safetensors", **OPTIONS)
    for part in (
        "missing decoder_layers.1.attention.attention.{query,key,value}.bias",
        "wrong shape decoder_norm.weight",
        "mystery.weight",
    ):
        assert part in caught.value.what


def test_statistics_of_another_space_are_refused(case, tmp_path):
    for stored, complaint in (
        ({"mean": torch.zeros(20, 4, 4)}, "it lacks var"),
        ({"mean": torch.zeros(20, 4, 4), "var": torch.ones(20, 5, 5)}, r"its var has shape \(20, 5, 5\)"),
        ({"mean": torch.zeros(20, 4, 4), "var": -torch.ones(20, 4, 4)}, "negative or invalid"),
    ):
        torch.save(stored, tmp_path / "other.pt")
        with pytest.raises(RobustokError, match=complaint) as caught:
            load(case, tmp_path, statistics=str(tmp_path / "other.pt"))
        assert caught.value.where == str(tmp_path / "other.pt")


def test_what_it_needs_is_known_before_it_is_read(tmp_path):
    registry = load_registry()

    def needs(**options: object) -> list[str]:
        spec = registry.spec("importer", {"use": "rae", **options})
        return [download.what for download in spec.factory.downloads(spec.config)]

    assert ["vit_base_patch14_reg4_dinov2" in what for what in needs()] == [True]
    assert needs(**OPTIONS) == []
    with pytest.raises(RobustokError, match="there is no file"):
        needs(statistics=str(tmp_path / "nowhere.pt"))


def test_an_encoder_of_another_width_is_refused(case, tmp_path):
    with pytest.raises(RobustokError, match=r"wrong shape decoder_embed\.weight"):
        load(case, tmp_path, encoder="test_vit", encoder_image_size=64, statistics=None)


def test_the_decoder_for_dinov2_has_its_number_of_parameters():
    sizes = {"decoder_style": "mae", "decoder_mlp_width": 4096}
    whole = millions("tokenizer", {"use": "rae", **sizes})
    with torch.device("meta"):
        encoder = load_registry().build("tokenizer", {"use": "rae"}).encoder
    frozen = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    positions = 257 * 1152 / 1e6  # counted with the published parameters, though fixed
    assert whole - frozen + positions == pytest.approx(415.35, abs=0.01)
