"""Arrays in files: read whole and as they should be, or refused with one message; objects are never unpickled."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robustok_core import RobustokError, RunError
from robustok_toolkit.array_files import array_names, read_array, read_arrays

VALUES = np.arange(24, dtype=np.int32).reshape(4, 6)


def header_of(text: str, version: bytes = b"\1\0") -> bytes:
    """The start of a .npy file with this header."""
    line = text.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(line).to_bytes(2, "little") + line


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("array", [VALUES, VALUES.T, VALUES[:0], np.float16(3.5), np.array(["é", "b"])])
def test_an_array_comes_back(array, mapped, tmp_path):
    np.save(tmp_path / "a.npy", array)
    found = read_array(tmp_path / "a.npy", mapped=mapped)
    assert found.dtype == np.asarray(array).dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_an_npz_file_come_back(save, tmp_path):
    save(tmp_path / "a.npz", x=VALUES, y=VALUES.T, z=np.array("text"))
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == {"x", "y", "z"}
    np.testing.assert_array_equal(found["x"], VALUES)
    np.testing.assert_array_equal(found["y"], VALUES.T)
    found["x"][0, 0] = 7  # one's own
    assert read_arrays(tmp_path / "a.npz", ["z", "none"])["z"] == "text"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"shape": (4, 5)}, r"expected int32 \(4, 5\), found int32 \(4, 6\)"),
        ({"dtype": np.int64}, r"expected int64 \(4, 6\), found int32 \(4, 6\)"),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(wanted, words, tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(RobustokError, match=words):
        read_array(tmp_path / "a.npy", **wanted)


VAST = header_of("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "header of the array is damaged"),
        (b"no array", "header of the array is damaged"),
        (b"\x93NUMPY\1\0", "header of the array is damaged"),
        (b"\x93NUMPY\7\0v\0" + b" " * 118, "header of the array is damaged"),
        (header_of("{'descr': "), "header of the array is damaged"),
        (header_of("'"), "header of the array is damaged"),
        (header_of("[" * 100), "header of the array is damaged"),
        (header_of("{'descr': '<q9', 'fortran_order': False, 'shape': (1,), }"), "header of the array is damaged"),
        (header_of("{'descr': '<i8', 'fortran_order': False, 'shape': ('1',), }"), "header of the array is damaged"),
        (header_of("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }"), "not a plain array"),
        (header_of("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (), }"), "not a plain array"),
        (VAST, "its header says 8,000,000,000,000 bytes of values, but there are 0"),
        (VAST + bytes(80), "but there are 80"),
    ],
)
@pytest.mark.parametrize("mapped", [True, False])
def test_a_damaged_array_is_refused(content, words, mapped, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(RobustokError, match=words) as caught:
        read_array(tmp_path / "a.npy", mapped=mapped)
    assert caught.value.where == str(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(RobustokError, match=r"not a readable \.npz file"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("lost", [1, 10, 90])
def test_an_array_that_is_cut_or_too_long_is_refused(lost, tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    content = (tmp_path / "a.npy").read_bytes()
    for damaged in (content[:-lost], content + bytes(lost)):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(RobustokError, match="this array cannot be read"):
            read_array(tmp_path / "a.npy")


def test_objects_are_never_unpickled(tmp_path):
    trap = np.array([Trap(tmp_path / "trace")], dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=trap)
    for read, file in ((read_array, "a.npy"), (read_arrays, "a.npz")):
        with pytest.raises(RobustokError, match="holds Python objects, and unpickling them may run code"):
            read(tmp_path / file)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_each_turned_bit_in_the_values_is_noticed(compression, tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["x"], VALUES)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        info = archive.getinfo("x.npy")
    content = (tmp_path / "a.npz").read_bytes()
    start = info.header_offset + 30 + len("x.npy")
    for place in range(start, start + info.compress_size):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            found = read_arrays(tmp_path / "a.npz")["x"]
        except RobustokError as error:
            assert "not a readable .npz file" in error.what  # noqa: PT017 (some bits of a compressed stream are unused)
        else:
            np.testing.assert_array_equal(found, VALUES)


def test_an_encrypted_array_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=VALUES)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for header, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(header) + place] |= 1  # the flag of an encrypted member
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(RobustokError, match=r"not a readable \.npz file \(.*encrypted"):
        read_arrays(tmp_path / "a.npz")


def test_a_size_that_no_compression_reaches_is_refused_before_memory_is_taken(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", VAST)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    size = (4_000_000_000).to_bytes(4, "little")
    place = content.index(b"PK\1\2") + 24
    content[place : place + 4] = size
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(RobustokError, match="the length of x does not match its header"):
        read_arrays(tmp_path / "a.npz")


def test_more_than_the_machine_has_is_refused_before_memory_is_taken(tmp_path):
    (tmp_path / "a.npy").write_bytes(VAST)
    os.truncate(tmp_path / "a.npy", len(VAST) + 8 * 10**12)  # takes no space on disk
    with pytest.raises(RobustokError, match=r"it needs 7451 GiB, but this process may use"):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_memory_that_runs_out_while_it_is_read_says_nothing_against_the_file(name, tmp_path, monkeypatch):
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, VALUES)

    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("robustok_toolkit.array_files.read_header", without_memory)
    with pytest.raises(RunError, match="there is not enough memory to read this array"):
        (read_array if name == "a.npy" else read_arrays)(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(RobustokError, match="this file holds a single array"):
        read_arrays(tmp_path / "a.npy")
    with pytest.raises(RobustokError, match="there is no such file"):
        read_array(tmp_path / "none.npy")
    (tmp_path / "a.npz").write_text("arrays")
    with pytest.raises(RobustokError, match="does not start as one"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_arrays_of_one_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "two.npz"
    with zipfile.ZipFile(file, "w") as archive:
        for value in (1, 2):
            with archive.open("arr_0.npy", "w") as member:
                np.save(member, np.full((4, 2), value))
    for read in (read_arrays, array_names):
        with pytest.raises(RobustokError, match="two of its members have the same name"):
            read(file)
