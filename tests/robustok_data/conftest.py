from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Picture = Callable[..., bytes]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ROBUSTOK_CACHE", str(folder))
    return folder


@pytest.fixture
def picture() -> Picture:
    """Encodes an image of noise: picture(seed, width, height, format)."""

    def make(seed: int, width: int = 24, height: int = 20, kind: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind)
        return out.getvalue()

    return make


@pytest.fixture
def class_folders(tmp_path: Path, picture: Picture) -> Callable[..., Path]:
    """Writes root/[SPLIT/]CLASS/*.png; returns the root."""

    def make(classes: dict[str, int], split: str = "", root: str = "pictures") -> Path:
        for label, (name, count) in enumerate(classes.items()):
            folder = tmp_path / root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i:03d}.png").write_bytes(picture(100 * label + i, 20 + i % 5, 24 - i % 3))
        return tmp_path / root

    return make
