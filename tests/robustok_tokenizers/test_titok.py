"""TiTok: both decoders train, and its sizes are checked."""

from __future__ import annotations

import pytest

from project import STEPS_PER_EPOCH, Project
from robustok_core import ProblemsError
from robustok_core.recipe.registry import load_registry

SMALL = {"width": 16, "depth": 1, "num_heads": 2}
PIXELS = {"use": "titok", "image_size": 32, "patch_size": 8, "num_latent_tokens": 6, "encoder": SMALL, "decoder": SMALL}
PIXELS |= {"output": "pixels", "quantizer": {"use": "vq", "codebook_size": 32, "width": 4}}
NETWORK = {"channels": 8, "channel_multipliers": [1, 1, 1, 1], "num_res_blocks": 1, "z_channels": 4, "norm_groups": 4}
CODES = {**PIXELS, "output": "codes", "inner_codes": 16, "pixel_decoder": NETWORK}


@pytest.mark.parametrize("tokenizer", [PIXELS, CODES], ids=["pixels", "codes"])
def test_it_trains_in_a_recipe(tokenizer, tmp_path):
    project = Project(tmp_path, tokenizer=tokenizer).run()
    assert len(project.logged()) == STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"pixel_decoder": {**NETWORK, "channel_multipliers": [1, 1]}}, "patch_size 8 is not 2"),
        ({"pixel_decoder": {**NETWORK, "norm_groups": 3}}, "norm_groups 3 does not divide the 8 channels"),
        ({"encoder": {**SMALL, "num_heads": 3}}, "width 16 is not a multiple of num_heads 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        load_registry().spec("tokenizer", {**CODES, **options})
