"""Measures the speed of reading cached latents against JSON lines: `python benchmarks/latent_cache.py`.

Both read the same codes of the same random rows in one process, in batches, as int64 tensors. JSON lines are read as
in published training code: `linecache` holds the file's lines, and one is parsed for each row. All rows are read once
before timing, so both are in memory. Also reported: microseconds a row, and the time to open either.
"""

from __future__ import annotations

import argparse
import json
import linecache
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import harness
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


def read_all(read: Callable[[list[int]], object], batches: list[list[int]]) -> None:
    for batch in batches:
        read(batch)


def measure(report: harness.Report, cache: Path, lines: Path) -> None:
    options = report.options
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
        "json lines": lambda batch: from_json_lines(lines, batch),
        "latent cache": rows.load,
        "latent cache, views drawn": with_views,
    }
    ways = {name: partial(read_all, read, batches) for name, read in readers.items()}
    found = harness.compare(ways, rounds=options.rounds)
    report.compared("reading latents", found, amount=options.rows, unit="rows")
    report.found["microseconds_a_row"] = {
        name: round(median(values) / options.rows * 1e6, 2) for name, values in found.seconds.items()
    }
    report.found["seconds_to_open"] = {name: round(value, 3) for name, value in opened.items()}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    sizes = {"images": 50_000, "rows": 20_000, "tokens": 256, "views": 2, "part_size": 4096, "batch_size": 256}
    quick = {"images": 8, "rows": 16, "tokens": 4, "part_size": 4, "batch_size": 4}
    options = harness.Parser(__doc__, {**sizes, "threads": 1}, quick=quick).options(arguments)
    report = harness.Report(options)
    with tempfile.TemporaryDirectory() as folder:
        measure(report, *write(Path(folder), options))
    return report.finish()


if __name__ == "__main__":
    main()
