"""GigaTok: how its queries start, its semantic target, and its sizes."""

from __future__ import annotations

import pytest
import torch

from project import STEPS_PER_EPOCH, Project
from robustok_blocks.adaptive_norm import AdaptiveGroupNorm, DepthToSpace
from robustok_core import ProblemsError, RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_tokenizers.gigatok_networks import block_grids

SMALL = {"width": 16, "depth": 2, "num_heads": 2}
TINY = {
    "use": "gigatok",
    "image_size": 32,
    "channels": 8,
    "channel_multipliers": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "z_channels": 8,
    "num_latent_tokens": 8,
    "encoder": SMALL,
    "decoder": SMALL,
    "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
}
SEMANTIC = {"network": {"use": "fashion_classifier"}, "depth": 1, "outputs": 96}


def build(**options: object):
    torch.manual_seed(0)
    return load_registry().build("tokenizer", {**TINY, **options})


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_queries_start_from_the_mean_twice_and_then_from_ever_smaller_blocks():
    assert block_grids(256) == [(1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16)]
    assert sum(rows * columns for rows, columns in block_grids(256)) == 256
    with pytest.raises(ValueError, match="power of 2, not 6"):
        block_grids(6)


def test_the_norm_adapts_to_the_mean_and_deviation_of_the_style():
    norm = AdaptiveGroupNorm(1, 2, 1)
    torch.nn.init.ones_(norm.gamma.weight)
    torch.nn.init.zeros_(norm.gamma.bias)
    torch.nn.init.constant_(norm.beta.weight, 10.0)
    torch.nn.init.zeros_(norm.beta.bias)
    style = torch.tensor([[[[1.0, 3.0]]]])  # mean 2, deviation sqrt(2)
    with torch.no_grad():
        adapted = norm(torch.tensor([[[[-1.0, 1.0]], [[-1.0, 1.0]]]]), style)
    root = 2.0**0.5
    torch.testing.assert_close(adapted, torch.tensor([[[[20 - root, 20 + root]], [[20 - root, 20 + root]]]]))


def test_channels_become_two_rows_and_two_columns():
    layer = DepthToSpace(1)
    torch.nn.init.zeros_(layer.conv1.weight)
    with torch.no_grad():
        layer.conv1.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        assert torch.equal(layer(torch.zeros(1, 1, 1, 1)), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))


def test_it_trains_in_a_recipe_with_a_semantic_target(tmp_path):
    project = Project(tmp_path, tokenizer={**TINY, "semantic": SEMANTIC}).run()
    assert len(project.logged()) == STEPS_PER_EPOCH
    assert "semantic" in " ".join(project.logged()[0])


def test_the_semantic_loss_reaches_the_encoder_and_stays_out_of_evaluation_and_of_the_latents_identity():
    tokenizer = build(semantic=SEMANTIC)
    loss = tokenizer.encode(images()).losses["semantic"]
    assert 0.0 <= loss.item() <= 1.0, "half of 1 - cosine similarity"
    loss.backward()
    assert tokenizer.encoder.conv_in.weight.grad.any()
    assert not tokenizer.eval().encode(images()).losses
    before = latent_fingerprint(tokenizer)
    torch.nn.init.zeros_(tokenizer.semantic_mlp[0].weight)
    assert latent_fingerprint(tokenizer) == before


def test_a_kept_mlp_without_a_network_is_not_trained():
    tokenizer = build(semantic={"depth": 1, "outputs": 5})
    assert "semantic" not in tokenizer.train().encode(images()).losses
    assert not any(parameter.requires_grad for parameter in tokenizer.semantic_mlp.parameters())


def test_a_target_of_another_width_is_refused():
    with pytest.raises(RobustokError, match="numbers per place, not 7"):
        build(semantic={**SEMANTIC, "outputs": 7})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 8, "num_latent_tokens": 1}, "which has a single place"),
        ({"num_latent_tokens": 12}, "power of 2, not 12"),
        ({"num_latent_tokens": 128}, "8 x 8 blocks of the map, whose 4 x 4 places"),
        ({"decoder_channel_multipliers": [1, 1]}, "the encoder has 4 levels and the decoder 2"),
        ({"norm_groups": 3}, "norm_groups 3 does not divide the 8 channels"),
        ({"encoder": {**SMALL, "num_heads": 3}}, "width 16 is not a multiple of num_heads 3"),
        ({"semantic": {"depth": 3}}, "semantic.depth 3 is above the decoder's 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        load_registry().spec("tokenizer", {**TINY, **options})
