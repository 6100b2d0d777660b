"""Measures the speed of reading cached latents against JSON lines: `python benchmarks/latent_cache.py`.

Both read the same codes of the same random rows in one process, in batches, as int64 tensors. JSON lines are read as
in published training code: `linecache` holds the file's lines, and one is parsed for each row. All rows are read once
before timing, so both are in memory, and repetitions alternate. Prints JSON: seconds (median and range of the
repetitions), microseconds per row, the speedup, and the time to open either.
"""

from __future__ import annotations

import argparse
import json
import linecache
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from robustok_core.values.draws import Draws
from robustok_core.values.latents import LatentSpace
from robustok_toolkit.latent_files import LatentRows, SplitShards, write_latents
from robustok_toolkit.resumable_shards import cut, shard_file, write_array

CODEBOOK = 4096


def write(folder: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """Writes the same codes as a cache and as JSON lines."""
    shape = (options.images, options.views, options.tokens)
    codes = np.random.default_rng(0).integers(0, CODEBOOK, shape).astype(np.uint16)
    labels = torch.arange(options.images) % 1000
    shards = cut("train", options.images, options.part_size)
    for shard in shards:
        write_array(shard_file(folder / "kept", shard, "codes"), codes[shard.first : shard.stop])
    split = SplitShards(name="train", array="codes", parts=shards, views=options.views, middle=0, labels=labels)
    space = LatentSpace(kind="discrete", num_tokens=options.tokens, width=8, codebook_size=CODEBOOK)
    (cache := folder / "latents").mkdir()
    names = [str(number) for number in range(1000)]
    write_latents(cache, folder / "kept", [split], space=space, tokenizer="", class_names=names, data={}, options={})
    lines = folder / "latents.jsonl"
    with lines.open("w") as opened:
        for row, label in zip(codes[:, 0].tolist(), labels.tolist(), strict=True):
            opened.write(json.dumps({"class_id": label, "tokens": row}) + "\n")
    return cache, lines


def from_json_lines(file: Path, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Codes (B, N) and labels (B,) of rows, parsed one by one."""
    records = [json.loads(linecache.getline(str(file), row + 1)) for row in rows]
    return torch.tensor([record["tokens"] for record in records]), torch.tensor(
        [record["class_id"] for record in records]
    )


def seconds(read: Callable[[list[int]], object], batches: list[list[int]]) -> float:
    """The time to read all batches."""
    began = time.perf_counter()
    for batch in batches:
        read(batch)
    return time.perf_counter() - began


def measured(cache: Path, lines: Path, options: argparse.Namespace) -> dict[str, object]:
    """The report to print."""
    began = time.perf_counter()
    rows = LatentRows(cache, "train")
    opened = {"latent cache": time.perf_counter() - began}
    began = time.perf_counter()
    linecache.getline(str(lines), 1)
    opened["json lines"] = time.perf_counter() - began
    indices = torch.randint(options.images, (options.rows,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = [indices[start : start + options.batch_size] for start in range(0, len(indices), options.batch_size)]
    first, (codes, labels) = rows.load(batches[0]), from_json_lines(lines, batches[0])
    assert torch.equal(first.latents.codes, codes)
    assert torch.equal(first.labels, labels)

    def with_views(batch: list[int]) -> object:
        return rows.load(batch, Draws(seed=1, indices=torch.tensor(batch), total=len(rows)))

    readers: dict[str, Callable[[list[int]], object]] = {
        "latent cache": rows.load,
        "latent cache, views drawn": with_views,
        "json lines": lambda batch: from_json_lines(lines, batch),
    }
    durations: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(options.repeats + 1):
        for name, read in readers.items():
            durations[name].append(seconds(read, batches))
    medians = {name: median(values[1:]) for name, values in durations.items()}
    return {
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "range": {name: [round(min(values[1:]), 4), round(max(values[1:]), 4)] for name, values in durations.items()},
        "microseconds_a_row": {name: round(value / options.rows * 1e6, 2) for name, value in medians.items()},
        "times_as_fast_as_json_lines": {
            name: round(medians["json lines"] / value, 1) for name, value in medians.items() if name != "json lines"
        },
        "seconds_to_open": {name: round(value, 3) for name, value in opened.items()},
        "settings": {**vars(options), "threads": torch.get_num_threads(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()},
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000, help="images in the cache")
    parser.add_argument("--rows", type=int, default=20_000, help="random rows to read")
    parser.add_argument("--tokens", type=int, default=256, help="codes per image")
    parser.add_argument("--views", type=int, default=2, help="views per image; the JSON lines hold only the first")
    parser.add_argument("--part-size", type=int, default=4096, help="images per shard")
    parser.add_argument("--batch-size", type=int, default=256, help="rows per batch")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        json.dump(measured(*write(Path(folder), options), options), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
