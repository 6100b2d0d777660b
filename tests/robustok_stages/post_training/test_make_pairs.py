"""Pairs of generated latents and real images: what they hold, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from project import NUM_PAIRS
from robustok_core import RobustokError
from robustok_core.runs.files import read_json
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.values.images import from_uint8, to_uint8
from robustok_toolkit.pair_files import PairRows


def test_every_pair_knows_its_image_and_the_control_holds_the_images_own_codes(post_trained):
    pairs = post_trained.artifact("pairs")
    rows = np.load(pairs / "rows.npy")
    index = read_json(pairs / "latents.json")
    assert len(rows) == len(set(rows.tolist())) == NUM_PAIRS
    assert index["sigma"] == [1.0, 0.5]
    tokenizer = post_trained.component("tokenizer", stage="train_tokenizer")
    real = post_trained.dataset().train.load(rows.tolist())
    with torch.no_grad():  # the control's images are the reconstructions, encoded again
        again = tokenizer.encode(from_uint8(to_uint8(tokenizer.decode(tokenizer.encode(real.images))))).codes
    parts = index["splits"]["sigma1"]["parts"]
    found = np.concatenate([np.load(pairs / "parts" / part["file"]) for part in parts])[:, 0]
    assert np.array_equal(found.astype(np.int64), again.numpy())
    assert np.array_equal(np.load(pairs / index["splits"]["sigma1"]["labels"]), real.labels.numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": {"scale": 2.0}}, "post_trainer.guidance.scale: guidance of scale 2 needs a generator"),
        ({"sampling": {"stops": 2}}, "post_trainer.sampling.stops"),
    ],
)
def test_pairs_that_the_generator_cannot_make_are_refused_before_it_is_trained(whole, tmp_path, options, message):
    project = whole(
        tmp_path,
        generator={"label_dropout": 0.0},
        post_trainer=options,
        compare_decoders={"guidance": {"scale": 1.0}},
    )
    assert message in project.refusal()
    assert not list(tmp_path.iterdir())


def test_sigma_outside_of_0_to_1_is_refused(whole, tmp_path):
    assert "stage.make_pairs.sigma" in whole(tmp_path, make_pairs={"sigma": [0.5, 1.5]}).refusal()


def test_sigmas_that_would_share_their_files_are_refused(whole, tmp_path):
    project = whole(tmp_path, make_pairs={"sigma": [0.5, 0.50000001]})
    assert "two values of sigma agree to 6 digits" in project.refusal()


@pytest.mark.parametrize("damage", ["cut", "fewer", "beyond", "missing"])
def test_pairs_with_damaged_image_indices_are_refused(post_trained, tmp_path, damage):
    pairs = shutil.copytree(post_trained.artifact("pairs"), tmp_path / "pairs")
    rows, file = np.load(pairs / "rows.npy"), pairs / "rows.npy"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "missing":
        file.unlink()
    else:
        np.save(file, rows[:-1] if damage == "fewer" else rows + 10**6)
    tokenizer = post_trained.component("tokenizer", stage="train_tokenizer")
    with pytest.raises(RobustokError, match="rows.npy"):
        PairRows(pairs, 0.5, post_trained.dataset().train, tokenizer=latent_fingerprint(tokenizer))
