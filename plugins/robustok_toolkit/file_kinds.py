"""What a file is, by its first bytes rather than by its name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from robustok_core.errors import RobustokError
from robustok_core.runs.shard_index import ENDING
from robustok_core.values.wording import some_names

#: Kinds of files that hold weights.
WeightKind = Literal["safetensors", "torch", "legacy torch", "index"]

_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # after the pickle protocol, in files of torch before 1.6
_LARGEST_HEADER = 100_000_000  # of a safetensors file, as its library limits it
_UNPACK = "unpack it, and name the weight file inside"
_DOWNLOAD = "download the file itself: on Hugging Face its address has `resolve`, not `blob`"
_AUTHOR = "ask its author for a safetensors file"

#: First bytes of other files: what they are and what to do.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, which stands for the file", "run `git lfs pull`, or download it"),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\x93NUMPY", "a NumPy array", "weights have names: name a safetensors or torch file"),
    (b"\x89HDF", "an HDF5 file", "convert it to safetensors"),
    (b"GGUF", "a GGUF file", "name the safetensors or torch file that it was made from"),
)


def weight_kind(file: Path) -> WeightKind:
    """The kind of a weight file.

    Raises:
        RobustokError: if it does not exist, cannot be read or is something else; says what it is and what to do.
    """
    if file.is_dir():
        raise _folder(file)
    if not file.is_file():
        raise RobustokError("there is no such file", where=str(file))
    try:
        with file.open("rb") as opened:
            head = opened.read(512)
    except OSError as error:
        raise RobustokError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    if head[2:].startswith(_TORCH_MAGIC):
        return "legacy torch"
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _zip(file)
    if head.lstrip().startswith(b"{") and file.name.endswith(ENDING):
        return "index"
    what, hint = _other(head)
    raise RobustokError(f"this is {what}, not a weight file", where=str(file), hint=hint)


def _zip(file: Path) -> WeightKind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # damaged: whoever reads it says so
        return "torch"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
            raise RobustokError("this is a TorchScript program, not a weight file", where=str(file), hint=_AUTHOR)
        return "torch"
    held = some_names(names) or "nothing"
    what, hint = "a zip archive", _UNPACK
    if names and all(name.endswith(".npy") for name in names):
        what, hint = "a file of NumPy arrays", "convert it to safetensors"
    raise RobustokError(f"this is {what} ({held}), not a weight file", where=str(file), hint=hint)


def _folder(folder: Path) -> RobustokError:
    endings = (ENDING, ".safetensors", ".pt", ".pth", ".bin", ".ckpt")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(endings))
    names.sort(key=lambda name: not name.endswith(ENDING))  # an index stands for the files beside it
    hint = f"name a file in it: {some_names(names)}" if names else "it holds no weight file"
    return RobustokError("this is a folder, not a weight file", where=str(folder), hint=hint)


def _other(head: bytes) -> tuple[str, str]:
    """What the first bytes of a file that holds no weights say it is, and what to do."""
    for start, what, hint in _OTHERS:
        if head.startswith(start):
            return what, hint
    again = "download it again: it is empty, cut or damaged, or a file of another kind"
    if not head:
        return "an empty file", again
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page", _DOWNLOAD
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return "a pickle that torch did not write, and reading it may run code", _AUTHOR
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if head.isascii() and head.decode("ascii").replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
        kind = "a JSON file" if head.lstrip()[:1] == b"{" else "a text file"
        return f"{kind} ({' '.join(head[:40].decode('ascii').split())} ...)", "name the weight file beside it"
    return "neither a safetensors nor a torch file", again
