"""The checks for components: every component of ours that can be built small passes."""

from __future__ import annotations

import pytest

from breaches import caught
from project import CONTINUOUS, CONV, recipe_of
from robustok.testing import check_component
from robustok_core import LatentSpace, Perturbation
from robustok_core.kinds import KINDS
from robustok_core.runs.files import write_tensors
from robustok_perturbations.top_delta import TopDelta

VIT = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 1, "num_heads": 3, "num_latent_tokens": 16}
LEVELS = {"image_size": 16, "channels": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1, "norm_groups": 4}
TOKENS = {"width": 16, "depth": 1, "num_heads": 2}
WITH_FEATURES = {"features": {"use": "fashion_classifier"}}
#: Options with which a component is small, and what it works with.
SMALL = {
    ("dataset", "fashion_mnist"): {},
    ("dataset", "fluent_emoji"): {"train_limit": 90, "validation_limit": 27},
    ("features", "efficientnet_lite0"): {},
    ("features", "fashion_classifier"): {},
    ("generator", "dit"): TOKENS,
    ("generator", "flow_transformer"): TOKENS,
    ("generator", "llamagen_gpt"): TOKENS,
    ("generator", "maskgit"): TOKENS,
    ("generator", "rar"): TOKENS,
    ("loss", "adversarial"): {"start": 0.0, "patch": {"width": 4, "layers": 1}},
    ("loss", "reconstruction"): {},
    ("metric", "codebook_usage"): {},
    ("metric", "colour_error"): {},
    ("metric", "frechet"): WITH_FEATURES,
    ("metric", "ifid"): WITH_FEATURES | {"interpolation": "mask"},
    ("metric", "noise_pfd"): WITH_FEATURES | {"alphas": [0.5], "levels": [0.5]},
    ("metric", "pfid"): WITH_FEATURES | {"alphas": [0.5], "deltas": [4]},
    ("metric", "psnr"): {},
    ("metric", "rank_pfd"): WITH_FEATURES | {"alphas": [0.5], "perturbation": {"use": "rank_law", "shares": [1.0]}},
    ("metric", "ssim"): {},
    ("perturbation", "gaussian"): {"beta": 0.5},
    ("perturbation", "interpolate"): {"beta": 0.5},
    ("perturbation", "none"): {},
    ("perturbation", "rank_law"): {"beta": 0.5, "shares": [0.5, 0.25, 0.25]},
    ("perturbation", "top_delta"): {"beta": 0.5, "delta": 4},
    ("post_trainer", "decoder"): {},
    ("post_trainer", "perturbed_decoder"): {"perturbation": {"use": "top_delta", "delta": 4}},
    ("quantizer", "fsq"): {"levels": [3, 3, 3]},
    ("quantizer", "ibq"): {"codebook_size": 32, "width": 4},
    ("quantizer", "lfq"): {"width": 5},
    ("quantizer", "projected_vq"): {"codebook_size": 32, "width": 4, "table_width": 8},
    ("quantizer", "residual_vq"): {"level_size": 8, "num_levels": 2, "width": 4},
    ("quantizer", "sim_vq"): {"codebook_size": 32, "width": 4},
    ("quantizer", "vq"): {"codebook_size": 32, "width": 4},
    ("sample_metric", "cmmd"): WITH_FEATURES | {"least_images": 32},
    ("sample_metric", "density_coverage"): WITH_FEATURES,
    ("sample_metric", "fdr"): {"networks": {"one": {"use": "fashion_classifier"}}},
    ("sample_metric", "frechet"): WITH_FEATURES,
    ("sample_metric", "inception_score"): WITH_FEATURES,
    ("sample_metric", "kid"): WITH_FEATURES | {"subset_size": 32},
    ("sample_metric", "mind"): WITH_FEATURES | {"num_images": 32},
    ("sample_metric", "precision_recall"): WITH_FEATURES,
    ("tokenizer", "conv_vq"): CONV | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
    ("tokenizer", "maskgit_vq"): LEVELS | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
    ("tokenizer", "open_magvit2"): LEVELS | {"quantizer": {"use": "lfq", "width": 5, "lowest_bit_first": True}},
    ("tokenizer", "kl_vae"): CONV | {"width": 4},
    ("tokenizer", "gigatok"): {
        "image_size": 32,
        "channels": 8,
        "channel_multipliers": [1, 1, 1],
        "num_res_blocks": 1,
        "norm_groups": 4,
        "z_channels": 8,
        "num_latent_tokens": 8,
        "encoder": TOKENS,
        "decoder": TOKENS,
        "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
    },
    ("tokenizer", "titok"): {
        "image_size": 32,
        "patch_size": 8,
        "num_latent_tokens": 6,
        "encoder": TOKENS,
        "decoder": TOKENS,
        "output": "pixels",
        "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
    },
    ("tokenizer", "vit_vq"): VIT | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
}
PARTS = {("metric", "noise_pfd"): {"tokenizer": CONTINUOUS["tokenizer"]}}


@pytest.mark.parametrize(("kind", "name"), SMALL, ids=[" ".join(key) for key in SMALL])
def test_a_component_of_ours_keeps_what_its_kind_promises(kind, name, registry):
    check_component(kind, name, SMALL[kind, name], registry=registry, **PARTS.get((kind, name), {}))


TRAINING = {"epochs": 1, "batch_size": 16}
REQUIRED = dict.fromkeys(("train_tokenizer", "train_generator", "post_train"), TRAINING)
REQUIRED["compare_decoders"] = {"num_samples": 8}
REQUIRED["sample"] = {"num_samples": 8}


def test_every_stage_of_ours_names_its_tables_and_artifacts(registry):
    for name in registry.names("stage"):
        check_component("stage", name, REQUIRED.get(name), registry=registry)


def test_a_stage_is_run_in_a_recipe(registry):
    check_component("stage", "train_tokenizer", TRAINING, registry=registry, recipe=recipe_of())
    with pytest.raises(AssertionError, match="the recipe does not have a stage that uses it"):
        check_component("stage", "tokenize", registry=registry, recipe=recipe_of())


def test_an_importer_is_checked_with_a_published_file(registry, tmp_path):
    table = {"use": "vit_vq", **VIT, "width": 64, "num_heads": 1}
    tokenizer = registry.build("tokenizer", table | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}})
    weights = registry.build("importer", {"use": "robustok"}).export(tokenizer)
    write_tensors(tmp_path / "main-train.safetensors", weights)
    check_component("importer", "robustok", registry=registry, file=tmp_path / "main-train.safetensors")


def test_there_is_a_check_of_every_kind():
    assert {kind for kind, _ in SMALL} == set(KINDS) - {"importer", "stage"}


def test_a_class_that_cannot_be_registered_or_configured_gets_the_reason():
    half = type("Half", (Perturbation,), {"Config": TopDelta.Config})
    caught("perturbation", half, "perturbation 'Half' does not implement perturb")
    caught("perturbation", TopDelta, "did you mean 'delta'?", {"detla": 1})
    caught("pertubation", TopDelta, "no kind is called 'pertubation'")
    caught("tokenizer", TopDelta, "must be a subclass of Tokenizer")


def test_an_instance_of_the_configuration_will_do():
    check_component("perturbation", TopDelta, TopDelta.Config(beta=0.5, delta=4))
    space = LatentSpace(kind="discrete", num_tokens=9, width=2, codebook_size=8)
    check_component("perturbation", TopDelta, {"beta": 0.5, "delta": 4}, space=space)
