"""The checks for components: every component of ours that can be built small passes, and each breach is caught."""

from __future__ import annotations

import inspect

import pytest
import torch
from attrs import field, frozen

from robustok.testing import check_component
from robustok_core import Dataset, Images, Latents, LatentSpace, Metric, Perturbation
from robustok_core.kinds import KINDS

VIT = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 1, "num_heads": 3, "num_latent_tokens": 16}
TOKENS = {"width": 16, "depth": 1, "num_heads": 2}
WITH_FEATURES = {"features": {"use": "fashion_classifier"}}
KL_VAE = {
    "use": "kl_vae",
    "image_size": 32,
    "channels": 8,
    "channel_multipliers": [1, 1],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "stem_patch": 4,
    "z_channels": 8,
    "width": 4,
}
CONV_VQ = {name: value for name, value in KL_VAE.items() if name not in ("use", "width")}
#: Options with which a component is small, and what it works with.
SMALL = {
    ("dataset", "fashion_mnist"): {},
    ("features", "efficientnet_lite0"): {},
    ("features", "fashion_classifier"): {},
    ("generator", "flow_transformer"): TOKENS,
    ("generator", "llamagen_gpt"): TOKENS,
    ("generator", "maskgit"): TOKENS,
    ("generator", "rar"): TOKENS,
    ("loss", "adversarial"): {"start": 0.0, "patch": {"width": 4, "layers": 1}},
    ("loss", "reconstruction"): {},
    ("metric", "codebook_usage"): {},
    ("metric", "frechet"): WITH_FEATURES,
    ("metric", "noise_pfd"): WITH_FEATURES | {"alphas": [0.5], "levels": [0.5]},
    ("metric", "pfid"): WITH_FEATURES | {"alphas": [0.5], "deltas": [4]},
    ("metric", "psnr"): {},
    ("metric", "ssim"): {},
    ("perturbation", "gaussian"): {"beta": 0.5},
    ("perturbation", "interpolate"): {"beta": 0.5},
    ("perturbation", "none"): {},
    ("perturbation", "top_delta"): {"beta": 0.5, "delta": 4},
    ("post_trainer", "decoder"): {},
    ("quantizer", "fsq"): {"levels": [3, 3, 3]},
    ("quantizer", "lfq"): {"codebook_size": 32},
    ("quantizer", "residual_vq"): {"codebook_size": 8, "width": 4, "num_quantizers": 2},
    ("quantizer", "sim_vq"): {"codebook_size": 32, "width": 4},
    ("quantizer", "vq"): {"codebook_size": 32, "width": 4},
    ("sample_metric", "frechet"): WITH_FEATURES,
    ("sample_metric", "inception_score"): WITH_FEATURES,
    ("sample_metric", "kid"): WITH_FEATURES | {"subset_size": 32},
    ("sample_metric", "precision_recall"): WITH_FEATURES,
    ("tokenizer", "conv_vq"): CONV_VQ | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
    ("tokenizer", "kl_vae"): {name: value for name, value in KL_VAE.items() if name != "use"},
    ("tokenizer", "vit_vq"): VIT | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
}
PARTS = {("metric", "noise_pfd"): {"tokenizer": KL_VAE}}


@pytest.mark.parametrize(("kind", "name"), SMALL, ids=" ".join)
def test_a_component_of_ours_keeps_what_its_kind_promises(kind, name, registry):
    check_component(kind, name, SMALL[kind, name], registry=registry, **PARTS.get((kind, name), {}))


def test_every_stage_of_ours_names_its_tables_and_artifacts(registry):
    for name in registry.names("stage"):
        check_component("stage", name, registry=registry)


def test_there_are_checks_for_every_kind():
    signature = inspect.getsource(check_component)
    assert {kind for kind, _ in SMALL} >= set(KINDS) - {"importer", "stage"}
    assert "file" in signature
