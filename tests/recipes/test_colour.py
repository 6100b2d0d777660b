"""The recipes in colour: a tokenizer, a generator and post-training on Fluent Emoji."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from project import Project
from robustok_core import Recipe

#: Makes them a matter of seconds.
TINY = {
    "run.name": "tiny",
    "run.precision": "no",
    "data.image_size": 32,
    "tokenizer.image_size": 32,
    "data.train_limit": 72,
    "data.validation_limit": 27,
    "tokenizer.channels": 16,
    "tokenizer.z_channels": 16,
    "tokenizer.quantizer.codebook_size": 64,
    "generator.width": 32,
    "generator.depth": 1,
    "stage.train_tokenizer.epochs": 1,
    "stage.train_generator.epochs": 1,
    "stage.train_generator.batch_size": 16,
    "stage.sample.num_samples": 18,
    "stage.post_train.epochs": 1,
    "stage.compare_decoders.num_samples": 9,
}
DECODERS, MEASURES = ("before", "sigma1", "sigma0.8"), ("psnr", "ssim", "colour_error")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Project:
    recipe = Recipe.load("colour_post_train", overrides=TINY)
    return Project.of(recipe.source.table, tmp_path_factory.mktemp("colour")).run()


def test_it_measures_colour_before_and_after_post_training_on_clean_latents_and_on_pairs(run):
    for measure in MEASURES:
        assert f"evaluate_tokenizer/{measure}" in run.results
        for decoder in DECODERS:
            for name in (f"{decoder}_{measure}", f"{decoder}_on_sigma0.8_{measure}"):
                assert run.results[f"compare_decoders/{name}"].details["num_images"] == 27


def test_no_distance_of_distributions_is_measured_with_so_few_images(run):
    depending = [name.rpartition("/")[2] for name, result in run.results.items() if result.num_images is not None]
    assert set(depending) <= {"codebook_usage", "codebook_perplexity"}


@pytest.mark.parametrize(
    ("artifact", "file"),
    [
        ("tokenizer_pictures", "reconstructions.png"),
        ("samples", "grid.png"),
        ("comparison", "samples.png"),
        ("comparison", "sigma.png"),
    ],
)
def test_it_writes_pictures_in_colour(run, artifact, file):
    with Image.open(run.artifact(artifact) / file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=2).max() > 50


def test_post_training_continues_what_main_training_made(registry):
    alone, whole = (Recipe.load(name).resolve(registry) for name in ("colour_train", "colour_post_train"))
    for table in ("data", "tokenizer", "perturbation", "generator"):
        assert alone.tables[table].table() == whole.tables[table].table()
    stages = [(stage.name, stage.spec.table()) for stage in alone.stages]
    assert [(stage.name, stage.spec.table()) for stage in whole.stages][: len(stages)] == stages


@pytest.mark.parametrize("name", ["main_train", "post_train", "tokenizer"])
def test_the_main_job_stays_grey(registry, name):
    assert Recipe.load(name).resolve(registry).tables["data"].name == "fashion_mnist"
