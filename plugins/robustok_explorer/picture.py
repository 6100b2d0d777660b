"""A sheet as one PNG, for `robustok view --draw`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from robustok_core.values.latents import LatentSpace
from robustok_explorer.drawing import Sheet, Tile
from robustok_explorer.markup import outline
from robustok_toolkit.cropped_images import as_pil
from robustok_toolkit.pictures import save_rows

_SMALL = 128  # pixels; smaller images are enlarged by a whole factor, so that the marks are visible
_COLUMNS = 8


def save_sheet(file: Path, sheet: Sheet) -> None:
    """Writes the tiles of a sheet, row by row, each line of tiles below its captions."""
    rows: dict[str, Tensor] = {}
    for name, tiles in sheet.rows.items():
        for start in range(0, len(tiles), _COLUMNS):
            line = tiles[start : start + _COLUMNS]
            caption = f"{name}, {start + 1}..." if start else name
            rows[f"{caption}: {' | '.join(tile.caption for tile in line)}"] = torch.stack(
                [marked(tile, sheet.space) for tile in line]
            )
    save_rows(file, rows)


def marked(tile: Tile, space: LatentSpace) -> Tensor:
    """(3, S, S) uint8: a tile, enlarged if it is small, with the tokens outlined that changed."""
    (picture,) = as_pil(tile.pixels[None])
    factor = max(1, _SMALL // picture.width)
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if tile.changed is not None and space.grid is not None:
        pen, (rows, columns) = ImageDraw.Draw(picture), space.grid
        across, down = (picture.width - 1) / columns, (picture.height - 1) / rows
        for x, y, right, below in outline(tile.changed, space):
            pen.line((x * across, y * down, right * across, below * down), fill=(255, 64, 0), width=1)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
