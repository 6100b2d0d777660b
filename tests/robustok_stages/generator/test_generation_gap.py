"""The gap between samples and real images, split between codes and decoder."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from project import (
    COLOURS,
    CONTINUOUS,
    FLOW,
    NUM_SAMPLES,
    NUM_TOKENS,
    TO_SAMPLES,
    TRAIN_IMAGES,
    VALIDATION_IMAGES,
    WIDTH,
    Project,
)
from robustok_core import Result
from robustok_metrics.frechet_distance import FeatureSums, distance_between
from robustok_stages.generator.generation_gap import split
from robustok_toolkit import latent_neighbours
from robustok_toolkit.trained_tokenizer import load_tokenizer
from robustok_training.batches import class_balanced_order

STAGE = {"use": "generation_gap", "metric": COLOURS, "batch_size": 7}
MAIN = "gfd_fashion_classifier"
PARTS = ("gap", "gap_codes", "gap_decoder", "gap_reconstruction")


def values(project: Project) -> dict[str, float]:
    return {name: project.results[f"generation_gap/{name}_{MAIN}"].value for name in PARTS}


def test_the_parts_of_a_gap_are_differences_that_add_up():
    numbers = {"samples": 10.0, "oracle": 4.0, "training images": 1.0, "reconstructions": 3.5}
    of = {name: Result(number, higher_is_better=False, num_images=9) for name, number in numbers.items()}
    results = split("gfd_x", of)
    assert {name: result.value for name, result in results.items()} == {
        "gap_gfd_x": 9.0,
        "gap_codes_gfd_x": 3.0,
        "gap_decoder_gfd_x": 6.0,
        "gap_reconstruction_gfd_x": 2.5,
    }
    assert results["gap_gfd_x"].details["training_images_gfd_x"] == 1.0
    assert all((result.num_images, result.higher_is_better) == (9, False) for result in results.values())


def test_the_codes_part_is_that_of_the_most_similar_training_images(trained, tmp_path, registry):
    """Against the definition: all similarities at once, and the distances from their features."""
    found = trained.later(tmp_path, [STAGE], load=("tokenizer", "samples")).run()
    tokenizer, dataset = load_tokenizer(trained.folder), trained.dataset()
    network = registry.build("features", COLOURS["features"])
    train, held_out = dataset.train.load(range(TRAIN_IMAGES)).images, dataset.validation
    codes = torch.from_numpy(np.load(trained.artifact("samples") / "codes.npy").astype(np.int64))
    with torch.no_grad():
        sampled = tokenizer.tokenizer.quantizer.lookup(codes).flatten(1)
        known = tokenizer.tokenizer.encode(train).vectors.flatten(1)
        nearest = torch.cosine_similarity(sampled[:, None], known[None], dim=2).argmax(dim=1)

        def distance(images) -> float:
            ours, theirs = FeatureSums(network.width), FeatureSums(network.width)
            ours.add(network(images))
            theirs.add(network(held_out.load(range(VALIDATION_IMAGES)).images))
            return distance_between(theirs.moments(), ours.moments())

        balanced = class_balanced_order(dataset.train.labels)[:NUM_SAMPLES]
        expected = distance(train[nearest]) - distance(train[balanced])
    assert values(found)["gap_codes"] == pytest.approx(expected, rel=1e-3)
    assert values(found)["gap"] == pytest.approx(values(found)["gap_codes"] + values(found)["gap_decoder"])


def test_perfect_codes_cost_nothing_and_the_decoder_as_much_as_reconstruction(trained, tmp_path):
    """Samples that are the latents of the training images that they are compared with."""
    samples = shutil.copytree(trained.artifact("samples"), tmp_path / "samples")
    (samples / "manifest.json").unlink()
    tokenizer, train = load_tokenizer(trained.folder), trained.dataset().train
    rows = class_balanced_order(train.labels)[:NUM_SAMPLES].tolist()
    codes = tokenizer.encode_images(train.load(rows).images).codes.numpy()
    np.save(samples / "codes.npy", codes.astype(np.uint16))
    found = Project(tmp_path / "later", [STAGE], load={"tokenizer": trained.folder, "samples": samples}).run()
    parts = values(found)
    assert parts["gap_codes"] == pytest.approx(0.0, abs=0.02 * parts["gap"])  # two images may have the same codes
    assert parts["gap_decoder"] == pytest.approx(parts["gap_reconstruction"], rel=0.02)


def test_vectors_have_a_gap_too_and_the_oracle_may_know_fewer_images(tmp_path):
    stages = (*TO_SAMPLES, STAGE | {"limit": 20, "train_images": 30})
    found = Project(tmp_path, stages, **CONTINUOUS, generator=FLOW).run()
    assert found.results[f"generation_gap/gap_{MAIN}"].num_images == 20


def test_latents_that_do_not_fit_into_memory_are_said_at_check_and_refused_when_the_stage_begins(
    trained, tmp_path, monkeypatch, caplog
):
    """The machine that checks may have less memory than the one that runs."""
    project = trained.later(tmp_path, [STAGE | {"train_images": 40}], load=("tokenizer", "samples"))
    project.check()
    assert not caplog.text
    of_image = 2 * NUM_TOKENS * WIDTH * 4  # bytes; twice while batches are put together
    monkeypatch.setattr(latent_neighbours, "usable_memory", lambda: 39 * of_image)
    project.check()
    assert "stage.generation_gap.train_images: the latents of 40 training images take" in caplog.text
    assert "set train_images to at most 39" in caplog.text
    assert "the latents of 40 training images take" in project.refusal()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": 10}, f"{NUM_SAMPLES} samples are compared with as many training images, and there are 10"),
        (
            {"metric": {"use": "kid", "features": COLOURS["features"], "subset_size": NUM_SAMPLES + 1}},
            f"stage.generation_gap.metric: the samples: {NUM_SAMPLES} images are too few",
        ),
    ],
)
def test_too_few_images_are_refused_before_anything_is_written(tmp_path, options, message):
    assert message in Project(tmp_path, (*TO_SAMPLES, STAGE | options)).refusal()
    assert not list(tmp_path.iterdir())
