"""Reads published weight files without executing code in them, and writes such files."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.files import new_file, read_tensors, write_tensors
from robustok_core.runs.shard_index import ENDING, read_shard_index, shards_of
from robustok_core.values.wording import reason_of, some_names
from robustok_toolkit.file_kinds import WeightKind, weight_kind
from robustok_toolkit.training_objects import stand_ins

#: Keys under which training scripts store weights, best first; without any of them, the file itself is the weights.
#: GEAR's "vq" is a tokenizer that stands beside the averages of a generator.
_KEYS = ("vq", "ema", "model_ema", "model", "state_dict", "module")
#: What wrappers of modules insert into names, at the beginning or within: DistributedDataParallel, torch.compile, FSDP.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_TWICE = f"two weights are called {{!r}} without the names of wrappers ({', '.join(_WRAPPERS[:2])})"
#: Where a Lightning module usually has its network.
_LIGHTNING = "model."
#: The name of one of several files with the weights of a model.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<all>\d+)(?P<ending>\.\w+)")
#: Endings of the files that `write_weights` writes.
ENDINGS = (".safetensors", ".pt", ".pth", ".bin")


@frozen(kw_only=True, eq=False)
class WeightFile:
    """The content of a weight file.

    Attributes:
        weights: tensors by name, without wrapper prefixes.
        key: the key that held them, or keys joined by a dot; "" if the file itself is the weights.
        others: the file's other keys, which were ignored.
    """

    weights: dict[str, Tensor]
    key: str
    others: list[str]


def read_weights(file: Path) -> WeightFile:
    """Reads a safetensors file, the index of several, or a torch file; of several sets of weights it takes
    a tokenizer (vq), then running averages (ema, model_ema), then model.

    What a file is, its first bytes say, not its name. Pickled files are read with torch's restricted unpickler, which
    builds only tensors, containers and argparse.Namespace (training options); objects of training libraries are passed
    over. What wrappers of modules insert into
    names (`module.`, `_orig_mod.`) is removed, and `model.` if all names begin so, as those of Lightning's modules do.

    Raises:
        RobustokError: the file is missing, damaged or of another kind, contains code, or holds no weights.
    """
    found = _weights_in(read_content(file), file)
    if not all(name.startswith(_LIGHTNING) for name in found.weights):
        return found
    return evolve(found, weights={name.removeprefix(_LIGHTNING): value for name, value in found.weights.items()})


def _weights_in(content: Mapping[Any, Any], file: Path) -> WeightFile:
    found = _find_weights(content)
    if found is None:
        raise RobustokError(
            f"this file holds no weights where they are expected: {_found_in(content)}", where=str(file)
        )
    keys, state = found
    weights = without_wrappers(state, str(file))
    others = [str(name) for name, value in content.items() if name not in keys[:1] and not isinstance(value, Tensor)]
    return WeightFile(weights=weights, key=".".join(keys), others=others)


def read_content(file: Path) -> Mapping[Any, Any]:
    """All that a weight file holds, as it is: `read_weights` reads the weights of a model in it.

    Raises:
        RobustokError: the file is missing, damaged or of another kind, contains code, or has no names.
    """
    kind = weight_kind(file)
    if kind == "index":
        return _read_sharded(file)
    _refuse_shard(file)
    return _content(file, kind)


def _refuse_shard(file: Path) -> None:
    """Raises RobustokError if a file is one of several by its name, such as model-00001-of-00002.safetensors."""
    named = _SHARD.fullmatch(file.name)
    if named is None or int(named["all"]) == 1:
        return
    index = f"{named['stem']}{named['ending']}{ENDING}"
    there = "" if file.with_name(index).is_file() else ", which is not beside it"
    what = f"by its name this is file {int(named['number'])} of {int(named['all'])} that hold a model together"
    raise RobustokError(what, where=str(file), hint=f"name their index instead: {index}{there}")


def read_matrix(file: Path) -> Tensor:
    """The one matrix that a safetensors or torch file holds, by any name or by none.

    Raises:
        RobustokError: the file is missing, damaged or of another kind, contains code, or holds something else.
    """
    kind = weight_kind(file)
    content: Any = _read_safetensors(file) if kind == "safetensors" else _read_torch(file)
    found = list(content.values()) if isinstance(content, Mapping) else [content]
    matrices = [value for value in found if isinstance(value, Tensor) and value.ndim == 2]
    if len(matrices) != 1:
        what = f"expected a file with one matrix, found {len(matrices)} in it"
        raise RobustokError(what, where=str(file), hint="save the wanted one as a file of its own")
    return without_wrappers({"matrix": matrices[0]}, str(file))["matrix"]


def _content(file: Path, kind: WeightKind) -> Mapping[Any, Any]:
    content: Any = _read_safetensors(file) if kind == "safetensors" else _read_torch(file)
    if not isinstance(content, Mapping):
        raise RobustokError(f"this file holds a {type(content).__name__}, not named weights", where=str(file))
    return content


def write_weights(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a weight file of the kind that its ending says.

    A .pt or .pth file holds the weights under "model", where the training scripts of published models look for them;
    a .bin file holds nothing but the weights.

    Raises:
        RobustokError: if it has another ending or cannot be written.
    """
    check_ending(file)
    if file.suffix == ".safetensors":
        write_tensors(file, tensors)
        return
    copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    with new_file(file) as unfinished, unfinished.open("wb") as opened:
        torch.save(copies if file.suffix == ".bin" else {"model": copies}, opened)


def check_ending(file: Path) -> None:
    """Raises RobustokError unless `write_weights` knows the ending of a file's name."""
    if file.suffix not in ENDINGS:
        hint = f"the name of a weight file ends in {', '.join(ENDINGS)}; the ending decides its format"
        raise RobustokError("this name does not end like that of a weight file", where=str(file), hint=hint)


# --- formats --------------------------------------------------------------------------------------


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    except RunError as error:
        what, hint = f"this safetensors file is damaged: {error.what}", "download it again"
        raise RobustokError(what, where=str(file), hint=hint) from error


def _read_sharded(file: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names."""
    index = read_shard_index(file)
    tensors: dict[str, Tensor] = {}
    for shard in shards_of(index, file):
        kind = weight_kind(shard)
        if kind == "index":
            raise RobustokError(f"{file.name} names this index, not a weight file", where=str(shard))
        part = _weights_in(_content(shard, kind), shard).weights
        names = {_without_wrapper_names(name) for name, held in index.weight_map.items() if held == shard.name}
        if lacking := sorted(names - part.keys()):
            what = f"this file lacks {len(lacking)} tensors that {file.name} says it has: {some_names(lacking)}"
            raise RobustokError(what, where=str(shard), hint="download it again")
        if twice := sorted(names & tensors.keys()):
            raise RobustokError(_TWICE.format(twice[0]), where=str(file))
        tensors |= {name: part[name] for name in names}
    return tensors


def _read_torch(file: Path) -> Any:
    damaged = _damage(file)
    if damaged:
        what = f"this torch file is damaged: {damaged}"
        raise RobustokError(what, where=str(file), hint="download it again")
    try:
        # opened here, because torch would take a file called .safetensors for one
        with file.open("rb") as opened, _allowed([argparse.Namespace, *stand_ins(file)]):
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RobustokError(
            "refused: this file holds more than weights, and reading it may run code",
            where=str(file),
            hint="ask its author for a safetensors file",
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        what = f"this torch file is damaged: {type(error).__name__}: {reason_of(error)}"
        raise RobustokError(what, where=str(file), hint="download it again") from error


@contextmanager
def _allowed(kinds: list[Any]) -> Iterator[None]:
    """Lets torch's restricted unpickler build these classes, without its warnings of how long rare tensors take."""
    with torch.serialization.safe_globals(kinds), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _damage(file: Path) -> str | None:
    """What is damaged in a torch file, as far as its checksums tell; torch itself does not compare them."""
    with file.open("rb") as opened:
        if opened.read(2) != b"PK":
            return None
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile raises many types
        return reason_of(error)
    return None if broken is None else f"{broken} does not have the checksum in the file"


# --- weights in what was read ---------------------------------------------------------------------


def _find_weights(content: Mapping[Any, Any]) -> tuple[list[str], Mapping[Any, Any]] | None:
    """The keys that lead to the best set of weights, and the set; None if there is none."""
    for key in _KEYS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and (found := _find_weights(inner)) is not None:
            return [key, *found[0]], found[1]
    return ([], content) if any(isinstance(value, Tensor) for value in content.values()) else None


def _found_in(content: Mapping[Any, Any]) -> str:
    """What a file without weights holds, for a message."""
    tables = [f"{path} ({count:,} tensors)" for path, count in _tables(content, "")]
    if tables:
        return f"it has tensors in {some_names(tables, most=5)}; save one of them as a file of its own"
    keys = [str(key)[:40] for key in content]
    if not keys:
        return "it is empty"
    return f"it has the {'key' if len(keys) == 1 else f'{len(keys)} keys'} {some_names(keys, most=5)}"


def _tables(content: Mapping[Any, Any], path: str, depth: int = 3) -> Iterator[tuple[str, int]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and depth:
            inner = f"{path}.{key}" if path else str(key)
            if count := sum(isinstance(item, Tensor) for item in value.values()):
                yield inner, count
            yield from _tables(value, inner, depth - 1)


def without_wrappers(state: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """The tensors of a state dict under their names without those of wrappers.

    Raises:
        RobustokError: located at `where`: two have the same name then, or one cannot be read.
    """
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        name = _without_wrapper_names(str(key))
        if name in weights:
            raise RobustokError(_TWICE.format(name), where=where)
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            kind = "without values" if value.is_meta else "quantized" if value.is_quantized else "sparse"
            raise RobustokError(f"the weight {name!r} is {kind}, which cannot be read", where=where)
        weights[name] = value.detach()
    return weights


def _without_wrapper_names(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
