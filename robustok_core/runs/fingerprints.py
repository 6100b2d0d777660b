"""Hashes of configurations and of files: what is the same has the same one."""

from __future__ import annotations

from typing import Any
from pathlib import Path
import hashlib
import json


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
