"""Soft vector quantization: means of codewords, their entropy, and a training with them."""

from __future__ import annotations

import math

import pytest
import torch

from project import STEPS_PER_EPOCH, Project
from robustok_core import ProblemsError
from robustok_core.recipe.registry import load_registry
from robustok_tokenizers.soft_codebook import SoftCodebook, SoftCodebookConfig

TINY = {
    "use": "mae_tok",
    "image_size": 32,
    "patch_size": 8,
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "num_latent_tokens": 6,
    "latent_width": 4,
    "rotary": "none",
    "soft_codebook": {"num_tables": 2, "size": 16},
}


def codebook(**options: object) -> SoftCodebook:
    made = SoftCodebook(SoftCodebookConfig(num_tables=2, size=3, l2_normalise=False, **options), num_tokens=4, width=3)
    with torch.no_grad():
        made.embedding.copy_(torch.stack([torch.eye(3), 10 * torch.eye(3)]))
    return made


def test_each_table_serves_its_own_run_of_tokens():
    z = torch.zeros(1, 4, 3)
    z[0, :, 1] = 1e3  # all tokens at the second codeword
    vectors = codebook()(z).vectors
    assert torch.equal(vectors[0, :2], torch.eye(3)[[1, 1]])
    assert torch.equal(vectors[0, 2:], 10 * torch.eye(3)[[1, 1]])


def test_a_latent_is_the_softmax_mean_of_the_codewords():
    z = torch.tensor([[[0.1, 0.2, 0.3]] * 4])
    vectors = codebook(temperature=0.5)(z).vectors
    torch.testing.assert_close(vectors[0, 0], (z[0, 0] / 0.5).softmax(0))
    torch.testing.assert_close(vectors[0, 3], 10 * (10 * z[0, 0] / 0.5).softmax(0))


def test_the_entropy_term_wants_sure_tokens_and_even_codewords():
    sure = torch.eye(3)[[0, 1, 2]].repeat_interleave(4, dim=0).reshape(3, 4, 3) * 1e4  # each image at one codeword
    assert codebook(entropy_weight=1.0)(sure).losses["entropy"].item() == pytest.approx(-math.log(3))
    unsure = torch.zeros(2, 4, 3)
    assert codebook(entropy_weight=1.0)(unsure).losses["entropy"].item() == pytest.approx(0.0, abs=1e-6)
    assert not codebook().eval()(unsure).losses


def test_codewords_learn_from_the_means_only_and_vectors_from_their_weights():
    made, z = codebook(), torch.zeros(1, 4, 3, requires_grad=True)
    made.weights(z).square().sum().backward()
    assert made.embedding.grad is None
    assert z.grad is not None


def test_it_trains_in_a_recipe(tmp_path):
    project = Project(tmp_path, tokenizer=TINY, perturbation=None).run()
    assert len(project.logged()) == STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_latent_tokens": 5}, "num_latent_tokens 5 is not a multiple of soft_codebook.num_tables 2"),
        ({"kl_weight": 1.0}, "either a soft_codebook or a posterior"),
        ({"decoder_width": 9}, "the decoder's width 9 is not a multiple of its 2 heads"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        load_registry().spec("tokenizer", {**TINY, **options})
