"""The convolutional tokenizers of the zoo train in a recipe, with the paper's perturbation where there are codes."""

from __future__ import annotations

import pytest

from project import Project

LEVELS = {"image_size": 32, "channels": 8, "channel_multipliers": [1, 1, 2], "num_res_blocks": 1, "norm_groups": 4}
CONV = LEVELS | {"use": "conv_vq", "z_channels": 8, "middle": False, "attention": False}
RECIPES = {
    "maskgit_vq": LEVELS | {"use": "maskgit_vq", "quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
    "open_magvit2": LEVELS | {"use": "open_magvit2", "quantizer": {"use": "lfq", "width": 5}},
    "ibq": CONV | {"quantizer": {"use": "ibq", "codebook_size": 32, "width": 4}},
    "projected_vq": CONV | {"quantizer": {"use": "projected_vq", "codebook_size": 32, "width": 4, "table_width": 8}},
    "double_z": LEVELS | {"use": "kl_vae", "z_channels": 4, "width": 4, "double_z": True, "attention_levels": []},
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_in_a_recipe(name, tmp_path):
    perturbation = {"perturbation": {"use": "gaussian"}} if name == "double_z" else {}
    project = Project(tmp_path, ["train_tokenizer"], tokenizer=RECIPES[name], **perturbation).run()
    assert project.results["train_tokenizer/steps"].value > 0
    assert project.component().encode(project.dataset().train.load([0, 1]).images).vectors.isfinite().all()
