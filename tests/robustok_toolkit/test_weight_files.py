"""Weight files: what a file is, its content says; whatever is wrong with it is one message."""

from __future__ import annotations

import argparse
import errno
import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from full_disk import leftovers
from readers import write_sharded
from robustok_core import RobustokError
from robustok_toolkit.weight_files import read_weights, write_weights

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.bias": torch.ones(2, dtype=torch.float16)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor] = WEIGHTS) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def refusal(file: Path) -> RobustokError:
    with pytest.raises(RobustokError) as caught:
        read_weights(file)
    assert caught.value.exit_code == 2
    assert caught.value.where is not None
    return caught.value


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.bin", "weights"])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy torch"])
def test_the_content_says_what_a_file_is_whatever_its_name(kind, name, tmp_path):
    if kind == "safetensors":
        save_file(WEIGHTS, tmp_path / name)
    else:
        torch.save(WEIGHTS, tmp_path / name, _use_new_zipfile_serialization=kind == "torch")
    assert_same(read_weights(tmp_path / name).weights)


def bytes_of(write) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zip_of(**files: bytes) -> bytes:
    def write(buffer):
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    return bytes_of(write)


def tar_of_nothing(buffer) -> None:
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights"))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (POINTER, "a Git LFS pointer", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html lang=en>", "a web page", "`resolve`, not `blob`"),
        (b"", "an empty file", "download it again"),
        (b"\0" * 1000, "neither a safetensors nor a torch file", "download it again"),
        (b"Access denied\n", "a text file (Access denied ...)", "beside it"),
        (b'{"architectures": ["ViT"]}', "a JSON file", "beside it"),
        (gzip.compress(b"x"), "a gzip archive", "unpack it"),
        (zip_of(readme=b"x"), "a zip archive (readme)", "unpack it"),
        (zip_of(**{"data.pkl": b"", "constants.pkl": b""}), "a TorchScript program", "safetensors"),
        (bytes_of(tar_of_nothing), "a tar archive", "unpack it"),
        (bytes_of(lambda buffer: np.savez(buffer, a=np.ones(2))), "a file of NumPy arrays (a.npy)", "safetensors"),
        (bytes_of(lambda buffer: np.save(buffer, np.ones(2))), "a NumPy array", "weights have names"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "convert it"),
        (b"GGUF\3\0\0\0", "a GGUF file", "safetensors"),
        (pickle.dumps({"a": 1}), "a pickle that torch did not write", "safetensors"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(content, what, hint, tmp_path):
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        error = refusal(tmp_path / name)
        assert f"this is {what}" in error.what
        assert hint in (error.hint or "")


def test_a_folder_is_refused_with_the_files_in_it(tmp_path):
    assert refusal(tmp_path).hint == "it holds no weight file"
    for name in ("a.safetensors", "model.safetensors.index.json", "readme.md"):
        (tmp_path / name).touch()
    assert refusal(tmp_path).hint == "name a file in it: model.safetensors.index.json, a.safetensors"


def test_a_torch_file_with_a_turned_bit_is_refused_or_has_its_weights(tmp_path):
    file, random = tmp_path / "w.pt", Random(0)
    torch.save({"model": WEIGHTS, "step": 3}, file)
    content, refused = file.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[random.randrange(len(content))] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        try:
            found = read_weights(file)
        except RobustokError:
            refused += 1
        else:
            assert_same(found.weights)
    assert refused, "the values have a checksum"


@pytest.mark.parametrize(
    "names",
    [
        ["module.{}", "module.{}"],
        ["_orig_mod.module.{}", "module._orig_mod.{}"],
        ["a._orig_mod.weight", "b.module.bias"],
        ["a._fsdp_wrapped_module._checkpoint_wrapped_module.weight", "b.bias"],
    ],
)
def test_what_wrappers_insert_is_removed_anywhere_in_a_name(names, tmp_path):
    wrapped = {name.format(own): WEIGHTS[own] for name, own in zip(names, WEIGHTS, strict=True)}
    save_file(wrapped, tmp_path / "w.pt")
    assert_same(read_weights(tmp_path / "w.pt").weights)


def test_two_weights_that_only_wrappers_tell_apart_are_refused(tmp_path):
    save_file({"a": torch.ones(1), "module.a": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert "two weights are called 'a'" in refusal(tmp_path / "w.safetensors").what


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"model": WEIGHTS, "ema": {"decay": 0.99}}, "model"),
        ({"ema": {"state_dict": WEIGHTS}, "model": {}}, "ema.state_dict"),
        ({"state_dict": {"model": WEIGHTS}, "args": argparse.Namespace(lr=1.0)}, "state_dict.model"),
        ({**WEIGHTS, "step": 3}, ""),
    ],
)
def test_the_set_that_holds_weights_is_found(content, key, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt")
    assert found.key == key
    assert_same(found.weights)


def test_where_weights_lie_elsewhere_the_message_says_where(tmp_path):
    torch.save({"averages": WEIGHTS, "teacher": {"net": WEIGHTS}, "step": 3}, tmp_path / "w.pt")
    what = refusal(tmp_path / "w.pt").what
    assert "tensors in averages (2 tensors), teacher.net (2 tensors)" in what
    torch.save(dict.fromkeys("abcdefg", 0), tmp_path / "w.pt")
    assert "it has the 7 keys a, b, c, d, e and 2 more" in refusal(tmp_path / "w.pt").what
    torch.save({"a": 0}, tmp_path / "w.pt")
    assert "it has the key a" in refusal(tmp_path / "w.pt").what
    torch.save({}, tmp_path / "w.pt")
    assert "it is empty" in refusal(tmp_path / "w.pt").what


@pytest.mark.parametrize(
    ("value", "kind"), [(torch.eye(3).to_sparse(), "sparse"), (torch.empty(3, device="meta"), "without values")]
)
def test_a_weight_of_another_layout_is_named(value, kind, tmp_path):
    torch.save({"a": value}, tmp_path / "w.pt")
    assert f"the weight 'a' is {kind}" in refusal(tmp_path / "w.pt").what


def test_all_files_of_an_index_are_read(tmp_path):
    assert_same(read_weights(write_sharded(tmp_path / "s", WEIGHTS)).weights)


def test_wrapper_names_are_removed_from_an_index_too(tmp_path):
    wrapped = {f"module.{name}": value for name, value in WEIGHTS.items()}
    assert_same(read_weights(write_sharded(tmp_path / "s", wrapped)).weights)


def test_an_index_that_names_an_index_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for named in (index.name, "other.safetensors.index.json"):
        index.write_text(json.dumps({"weight_map": dict.fromkeys(WEIGHTS, named)}))
        index.with_name(named).write_bytes(index.read_bytes())
        assert refusal(index).what == f"{index.name} names this index, not a weight file"


def test_two_weights_in_different_files_that_only_wrappers_tell_apart_are_refused(tmp_path):
    index = write_sharded(tmp_path / "s", {"a": torch.ones(1), "module.a": torch.zeros(1)})
    assert "two weights are called 'a'" in refusal(index).what


def test_a_missing_file_of_an_index_is_named(tmp_path):
    index = write_sharded(tmp_path / "s", WEIGHTS)
    index.with_name("part-1.safetensors").unlink()
    error = refusal(index)
    assert error.what == "1 of the 2 files that this index names are missing: part-1.safetensors"
    assert error.hint == "download them to the folder of the index"


def test_a_tensor_that_its_file_lacks_is_named(tmp_path):
    index = write_sharded(tmp_path / "s", WEIGHTS)
    save_file({"other": torch.ones(1)}, index.with_name("part-1.safetensors"))
    assert "lacks 1 tensors that model.safetensors.index.json says it has: b.bias" in refusal(index).what


@pytest.mark.parametrize("name", ["../w.safetensors", "/w.safetensors", "", "a\0b"])
def test_an_index_names_only_files_beside_it(name, tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": dict.fromkeys(WEIGHTS, name)}))
    with pytest.raises(RobustokError, match="is not the name of a file beside the index"):
        read_weights(index)


@pytest.mark.parametrize(("ending", "key"), [("safetensors", ""), ("pt", "model"), ("pth", "model"), ("bin", "")])
def test_the_ending_decides_the_format_of_a_written_file(ending, key, tmp_path):
    file = tmp_path / f"w.{ending}"
    write_weights(file, WEIGHTS)
    found = read_weights(file)
    assert found.key == key
    assert_same(found.weights)
    if ending != "safetensors":
        content = torch.load(file, weights_only=True)
        assert_same(content[key] if key else content)


def test_a_part_of_a_larger_tensor_is_written_alone(tmp_path):
    write_weights(tmp_path / "w.pt", {"a": torch.zeros(1_000_000)[:2]})
    assert (tmp_path / "w.pt").stat().st_size < 10_000


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(RobustokError, match=r"ends in \.safetensors, \.pt, \.pth, \.bin"):
        write_weights(tmp_path / "w.ckpt", WEIGHTS)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_message_and_leaves_no_file(tmp_path, monkeypatch):
    def save(content, opened):
        opened.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RobustokError, match="cannot write: No space left on device"):
        write_weights(tmp_path / "w.pt", WEIGHTS)
    assert not leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_claims_more_weights_than_any_model_has_is_refused(tmp_path):
    about = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(b'"%d":%s' % (number, about) for number in range(200_000)) + b"}"
    (tmp_path / "many.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(RobustokError, match="claims to hold 200,000 tensors"):
        read_weights(tmp_path / "many.safetensors")
