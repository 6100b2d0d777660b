"""Hashes of configurations and of files: what is the same has the same one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from robustok_core.kinds.tokenizer import Tokenizer


def fingerprint_of(value: Any) -> str:
    """A hash of any JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_fingerprint(path: Path) -> str:
    """A hash of a file, or of the files in a folder, for what comes from elsewhere."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:16]


def latent_fingerprint(tokenizer: Tokenizer) -> str:
    """16 hexadecimal digits over all weights and buffers that make latents (encoder, projection, codebook).

    A post-trained tokenizer has the fingerprint of the one it came from: its codes mean the same.
    """
    others = [tokenizer.decoder, *(getattr(tokenizer, name) for name in tokenizer.training_only)]
    left_out = {id(tensor) for module in others for tensor in [*module.parameters(), *module.buffers()]}
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict(keep_vars=True).items()):
        if id(tensor) not in left_out:
            held = tensor.detach().cpu().contiguous()
            if held.is_floating_point():
                held = held + 0.0  # averaging weights makes 0.0 of -0.0, which is the same number
            digest.update(f"{name} {held.dtype} {tuple(held.shape)}".encode())
            digest.update(held.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
