"""Weights in several files: the index, such as model.safetensors.index.json, that names the file of each tensor."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.runs.records import read_record
from robustok_core.values.spec import wrong_name
from robustok_core.values.wording import short, some_names

ENDING = ".index.json"


@frozen(kw_only=True)
class ShardIndex:
    """The file of each tensor, by the tensor's name."""

    weight_map: dict[str, str] = field(validator=validators.min_len(1))

    def __attrs_post_init__(self) -> None:
        for name in self.weight_map.values():
            if wrong_name(name):
                raise ValueError(f"{short(name)} is not the name of a file beside the index")


def read_shard_index(file: Path) -> ShardIndex:
    """Reads an index.

    Raises:
        RobustokError: if it is damaged, or a file that it names is missing.
    """
    index = read_record(ShardIndex, file)
    missing = [shard for shard in shards_of(index, file) if not shard.is_file()]
    if missing:
        what = f"{len(missing)} of the {len(set(index.weight_map.values()))} files that this index names are missing"
        names = some_names([shard.name for shard in missing])
        raise RobustokError(f"{what}: {names}", where=str(file), hint="download them to the folder of the index")
    return index


def shards_of(index: ShardIndex, file: Path) -> list[Path]:
    """The files that an index names, which lie beside it, sorted."""
    return [file.with_name(name) for name in sorted(set(index.weight_map.values()))]


def files_of(file: Path) -> list[Path]:
    """All files of a published checkpoint: the one that is named, and if it is an index, those that it names.

    Raises:
        RobustokError: if an index is damaged, or a file that it names is missing.
    """
    return [file, *shards_of(read_shard_index(file), file)] if file.name.endswith(ENDING) else [file]
