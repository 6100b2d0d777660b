"""Hashes of configurations, files and weights: equal content has an equal hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from robustok_core.kinds.tokenizer import Tokenizer


def fingerprint_of(value: Any) -> str:
    """A hash of any JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_of(file: Path, size: int | None = None) -> str:
    """The SHA-256 of a file, or of its first `size` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for block in _blocks(file, size):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: Path, size: int | None = None) -> Iterator[bytes]:
    left = file.stat().st_size if size is None else size
    with file.open("rb") as opened:
        while left > 0 and (block := opened.read(min(left, 2**20))):
            left -= len(block)
            yield block


def content_fingerprint(path: Path) -> str:
    """A hash of a file, or of the files in a folder, used for content from outside the run."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    for file in files:
        digest.update(file.name.encode())
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()[:16]


def latent_fingerprint(tokenizer: Tokenizer) -> str:
    """A hash (16 hexadecimal digits) of all weights and buffers that determine latents: encoder, projection, codebook.

    Post-training does not change it: the codes of a post-trained tokenizer mean the same.
    """
    others = [tokenizer.decoder, *(getattr(tokenizer, name) for name in tokenizer.training_only)]
    left_out = {id(tensor) for module in others for tensor in [*module.parameters(), *module.buffers()]}
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict(keep_vars=True).items()):
        if id(tensor) not in left_out:
            value = tensor.detach().cpu().contiguous()
            if value.is_floating_point():
                value = value + 0.0  # averaging weights turns -0.0 into 0.0, an equal number
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
