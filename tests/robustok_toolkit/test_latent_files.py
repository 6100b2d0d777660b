"""Latents in files: rows, views, and refusal of damaged files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from project import TRAIN_IMAGES
from robustok_core import Draws, RobustokError
from robustok_core.runs.files import read_json, write_json
from robustok_core.values.latents import LatentSpace
from robustok_toolkit.latent_files import LatentRows, SplitShards, write_latents
from robustok_toolkit.resumable_shards import cut, shard_file, write_array

DISCRETE = LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=50)
CONTINUOUS = LatentSpace(kind="continuous", num_tokens=4, width=3)


def cache_of(folder: Path, array: np.ndarray, space: LatentSpace, size: int = 4, middle: int = 0) -> Path:
    """Latents of an array (rows, views, ...) as both splits, in shards of `size` rows."""
    name = "codes" if space.codebook_size is not None else "vectors"
    splits = []
    for split in ("train", "validation"):
        shards = cut(split, len(array), size)
        for shard in shards:
            write_array(shard_file(folder / "kept", shard, name), array[shard.first : shard.stop])
        labels = torch.arange(len(array)) % 3
        splits.append(
            SplitShards(name=split, array=name, parts=shards, views=array.shape[1], middle=middle, labels=labels)
        )
    target = folder / "latents"
    target.mkdir()
    about = {"space": space, "tokenizer": "abc", "class_names": ["a", "b", "c"], "data": {}, "options": {}}
    write_latents(target, folder / "kept", splits, **about)
    shutil.rmtree(folder / "kept")
    return target


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50, (10, 3, 4)).astype(np.uint16)


def test_without_draws_a_row_is_the_first_view_as_exact_integers(codes, tmp_path):
    rows = LatentRows(cache_of(tmp_path, codes, DISCRETE), "train", tokenizer="abc")
    batch = rows.load([9, 0, 5, 5])
    assert batch.latents.codes.dtype == torch.int64
    np.testing.assert_array_equal(batch.latents.codes.numpy(), codes[[9, 0, 5, 5], 0])
    assert batch.labels.tolist() == [0, 0, 2, 2]
    assert batch.indices.tolist() == [9, 0, 5, 5]
    assert (len(rows), rows.views, rows.num_classes, rows.class_names) == (10, 3, 3, ("a", "b", "c"))
    assert rows.space == DISCRETE


def test_draws_choose_the_view_of_each_row_uniformly_and_by_its_index_only(codes, tmp_path):
    rows = LatentRows(cache_of(tmp_path, codes, DISCRETE), "train")
    seen = np.zeros(3)
    for epoch in range(300):
        loaded = rows.load(range(10), Draws.for_rows(epoch, 10)).latents.codes.numpy()
        matches = (loaded[:, None] == codes).all(2)  # (10, 3): rows differ in all views
        assert (matches.sum(1) == 1).all()
        seen += matches.sum(0)
    # 3,000 draws with probability 1/3: the standard deviation is 25.8
    assert (abs(seen - 1000) < 4 * 25.8).all(), seen
    whole = rows.load(range(10), Draws.for_rows(7, 10)).latents.codes
    some = rows.load([6, 2], Draws(seed=7, indices=torch.tensor([6, 2]), total=10)).latents.codes
    assert torch.equal(some, whole[[6, 2]])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 0.0), (np.float16, 2e-3)])
def test_vectors_are_loaded_as_float32_and_statistics_are_of_the_middle_view(tmp_path, dtype, tolerance):
    vectors = np.random.default_rng(1).normal(3.0, [0.1, 1.0, 10.0], (11, 2, 4, 3)).astype(np.float32)
    rows = LatentRows(cache_of(tmp_path, vectors.astype(dtype), CONTINUOUS, middle=1), "train")
    batch = rows.load([10, 3])
    assert batch.latents.vectors.dtype == torch.float32
    assert batch.latents.codes is None
    np.testing.assert_allclose(batch.latents.vectors.numpy(), vectors[[10, 3], 0], rtol=tolerance)
    middle = vectors[:, 1].astype(np.float64)
    np.testing.assert_allclose(rows.mean.numpy(), middle.mean((0, 1)), rtol=max(tolerance, 1e-6))
    np.testing.assert_allclose(rows.std.numpy(), middle.std((0, 1)), rtol=max(tolerance, 1e-6))


@pytest.mark.parametrize(("size", "dtype"), [(2**16, "uint16"), (2**16 + 1, "int32")])
def test_codes_are_stored_in_16_bits_if_they_fit(size, dtype, tmp_path):
    from robustok_core.values.latents import Latents
    from robustok_toolkit.latent_arrays import code_type, to_array

    space = LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=size)
    array = to_array(Latents(codes=torch.tensor([[0, 1, size - 1, 7]])), space)
    assert array.dtype == code_type(size) == np.dtype(dtype)
    rows = LatentRows(cache_of(tmp_path, array[:, None], space), "train")
    assert rows.load([0]).latents.codes.tolist() == [[0, 1, size - 1, 7]]


def test_the_rows_of_a_run_are_the_encoded_images_and_their_mirror_images(trained):
    tokenizer, data = trained.component("tokenizer"), trained.dataset()
    with torch.no_grad():
        for name, split in (("train", data.train), ("validation", data.validation)):
            rows = LatentRows(trained.artifact("latents"), name)
            images = split.load(range(len(split))).images
            assert torch.equal(rows.load(range(len(split))).latents.codes, tokenizer.encode(images).codes)
            assert torch.equal(rows.labels, split.labels)
        assert rows.views == 1
        rows = LatentRows(trained.artifact("latents"), "train")
        indices = torch.arange(TRAIN_IMAGES)
        draws = Draws(seed=5, indices=indices, total=TRAIN_IMAGES)
        images = data.train.load(range(TRAIN_IMAGES)).images
        views = torch.stack([tokenizer.encode(images.flip(dims)).codes for dims in ([], [3])])
    codes = rows.load(indices.tolist(), draws).latents.codes
    first, second = (codes == views).all(2)
    assert (first | second).all()
    assert TRAIN_IMAGES / 4 < int((first & ~second).sum()) < 3 * TRAIN_IMAGES / 4


def test_a_pickled_copy_is_small_and_loads_the_same_rows(tmp_path):
    codes = np.random.default_rng(0).integers(0, 50, (5000, 3, 4)).astype(np.uint16)
    rows = LatentRows(cache_of(tmp_path, codes, DISCRETE, size=4096), "train")
    packed = pickle.dumps(rows)
    assert len(packed) < 8 * 5000 + 5000  # little more than the labels
    copied = pickle.loads(packed)
    assert torch.equal(copied.load([4999, 1]).latents.codes, rows.load([4999, 1]).latents.codes)
    assert copied.fingerprint == rows.fingerprint


def test_the_fingerprint_depends_on_the_content_only(codes, tmp_path):
    one = LatentRows(cache_of(tmp_path / "a", codes, DISCRETE), "train").fingerprint
    assert LatentRows(cache_of(tmp_path / "b", codes, DISCRETE), "train").fingerprint == one
    changed = codes.copy()
    changed[9, 2, 3] ^= 1
    assert LatentRows(cache_of(tmp_path / "c", changed, DISCRETE), "train").fingerprint != one


def truncate(folder: Path) -> None:
    file = sorted((folder / "parts").iterdir())[1]
    file.write_bytes(file.read_bytes()[:-3])


def delete(folder: Path) -> None:
    sorted((folder / "parts").iterdir())[1].unlink()


def replace(folder: Path) -> None:
    np.save(sorted((folder / "parts").iterdir())[1], np.zeros((4, 3, 5), np.uint16))


def make_foreign(folder: Path) -> None:
    sorted((folder / "parts").iterdir())[1].write_bytes(b"GIF89a")


def exceed(folder: Path) -> None:
    file = sorted((folder / "parts").iterdir())[1]
    array = np.load(file)
    array[3, 2, 1] = 50
    np.save(file, array)


def age(folder: Path) -> None:
    write_json(folder / "latents.json", read_json(folder / "latents.json") | {"version": 0})


def unlabel(folder: Path) -> None:
    np.save(folder / "train-labels.npy", np.zeros(9, np.int64))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, r"train-000000004-000000008.codes.npy: this array cannot be read"),
        (delete, r"train-000000004-000000008.codes.npy: there is no such file"),
        (replace, r"this is another array: expected uint16 \(4, 3, 4\), found uint16 \(4, 3, 5\)"),
        (make_foreign, r"train-000000004-000000008.codes.npy: this array cannot be read"),
        (exceed, r"train-000000004-000000008.codes.npy: .* holds 50, but codes are 0 to 49"),
        (age, r"latents.json: these latents have version 0, but this robustok reads version 1"),
        (unlabel, r"train-labels.npy: this is another array: expected int64 \(10,\), found int64 \(9,\)"),
        (lambda folder: (folder / "latents.json").write_text('{"a": 1}'), "not an index of robustok latents"),
        (lambda folder: (folder / "latents.json").unlink(), "there are no latents here"),
    ],
)
def test_damaged_latents_are_refused_when_opened(codes, tmp_path, damage, words):
    folder = cache_of(tmp_path, codes, DISCRETE)
    damage(folder)
    with pytest.raises(RobustokError, match=words):
        LatentRows(folder, "train")


def test_latents_of_another_tokenizer_are_refused(codes, tmp_path):
    folder = cache_of(tmp_path, codes, DISCRETE)
    with pytest.raises(RobustokError, match=r"latents of another tokenizer \(abc, not xyz\)"):
        LatentRows(folder, "train", tokenizer="xyz")


def test_vectors_that_are_not_finite_are_refused(tmp_path):
    vectors = np.zeros((5, 1, 4, 3), np.float32)
    vectors[4, 0, 1, 1] = np.nan
    folder = cache_of(tmp_path, vectors, CONTINUOUS)
    with pytest.raises(
        RobustokError, match="train-000000004-000000005.vectors.npy: .* holds NaN .*make the latents again"
    ):
        LatentRows(folder, "train")


def test_a_shard_of_other_latents_with_the_same_shape_is_refused(codes, tmp_path):
    cache = cache_of(tmp_path, codes, DISCRETE)
    np.save(min((cache / "parts").glob("train-*.npy")), codes[4:8])
    with pytest.raises(RobustokError, match=r"does not have the hash in latents\.json"):
        LatentRows(cache, "train", tokenizer="abc")
