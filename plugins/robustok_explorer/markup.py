"""Sheets, pickers and snippets as HTML. Every name is escaped here: files and classes may be called anything."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from robustok_core.values.latents import LatentSpace
from robustok_core.values.printable import printable
from robustok_explorer.drawing import Sheet, Tile
from robustok_explorer.snippets import Snippets
from robustok_toolkit.cropped_images import as_pil

Choice = Literal["one", "many"]
#: Pixels of a thumbnail in a picker.
_THUMBNAIL = 64
#: Tiles beside each other on a wide page.
_ABREAST = 6


def text(value: object) -> str:
    """Foreign text for HTML: control characters are shown, and markup is not markup."""
    return escape(printable(value), quote=True)


def sheet_html(sheet: Sheet) -> str:
    """The rows of a sheet: a figure for each tile, with the tokens that changed outlined."""
    rows = (_row(name, tiles, sheet.space) for name, tiles in sheet.rows.items())
    lines = "".join(f"<li>{text(line)}</li>" for line in sheet.lines)
    return "".join(rows) + (f'<ul class="rx-lines">{lines}</ul>' if lines else "")


def message_html(message: object) -> str:
    """What is wrong with a setting, in place of a sheet."""
    return f'<p class="rx-message" role="alert">{text(message)}</p>'


def note_html(note: object) -> str:
    """What there is to know about a view, above its controls."""
    return f'<p class="rx-missing">{text(note)}</p>'


def snippets_html(snippets: Snippets) -> str:
    """A view as Python and as a command, each with a button that copies it."""
    files = " and ".join(map(text, snippets.files))
    notes = [f"Run it in the folder with {files}."] if files else []
    notes += map(text, snippets.notes)
    return "".join(f"<p>{note}</p>" for note in notes) + "".join(
        f'<div class="rx-code"><button type="button" data-copy="Copy as {name}">Copy as {name}</button>'
        f'<details><summary>Show the {name}</summary><pre tabindex="0" aria-label="{name}"><code>{escape(code)}</code>'
        "</pre></details></div>"
        for name, code in (("Python", snippets.python), ("command", snippets.command))
    )


def images_html(images: Tensor, rows: Sequence[int], *, label: str, chosen: int | None) -> str:
    """Images to choose one of: images (B, 3, H, W) uint8 with their numbers."""
    buttons = (
        _button(row, f"image {row}", row == chosen, place, chosen in rows, f'<img src="{_thumbnail(pixels)}" alt="">')
        for place, (row, pixels) in enumerate(zip(rows, images, strict=True))
    )
    return _group("one", label, 8, "rx-images", "", buttons)


def tokens_html(space: LatentSpace, pixels: Tensor, *, label: str, choice: Choice, chosen: Collection[int]) -> str:
    """The tokens of an image to choose from, over the image (3, H, W) uint8 where they have places in it."""
    columns = math.ceil(math.sqrt(space.num_tokens)) if space.grid is None else space.grid[1]
    behind = "" if space.grid is None else f" background-image: url({_png(pixels)});"
    buttons = (
        _button(token, _token_name(token, space), token in chosen, token, bool(chosen) and choice == "one")
        for token in range(space.num_tokens)
    )
    return _group(choice, label, columns, "rx-tokens", behind, buttons)


def outline(changed: Tensor, space: LatentSpace) -> list[tuple[int, int, int, int]]:
    """The borders of the changed tokens (N,) bool, as lines (x, y, x, y) in units of tokens; none without a grid."""
    if space.grid is None:
        return []
    rows, columns = space.grid
    inside = torch.zeros(rows + 2, columns + 2, dtype=torch.bool)
    inside[1:-1, 1:-1] = changed.reshape(rows, columns)
    level = (inside[1:, 1:-1] != inside[:-1, 1:-1]).nonzero().tolist()  # between a token and the one above it
    upright = (inside[1:-1, 1:] != inside[1:-1, :-1]).nonzero().tolist()
    return [(x, y, x + 1, y) for y, x in level] + [(x, y, x, y + 1) for y, x in upright]


def _row(name: str, tiles: Sequence[Tile], space: LatentSpace) -> str:
    figures = "".join(_figure(tile, space, name) for tile in tiles)
    return (
        f'<section class="rx-row" aria-label="{text(name)}"><h3>{text(name)}</h3>'
        f'<div class="rx-tiles" style="--tiles: {min(len(tiles), _ABREAST)}">{figures}</div></section>'
    )


def _figure(tile: Tile, space: LatentSpace, row: str) -> str:
    marked = "" if tile.changed is None else f", {int(tile.changed.sum())} tokens marked"
    picture = f'<img src="{_png(tile.pixels)}" alt="{text(f"{row}, {tile.caption}{marked}")}">'
    if tile.changed is not None and space.grid is not None:
        path = "".join(f"M{x} {y}L{right} {below}" for x, y, right, below in outline(tile.changed, space))
        picture += (
            f'<svg viewBox="0 0 {space.grid[1]} {space.grid[0]}" preserveAspectRatio="none" aria-hidden="true">'
            f'<path class="rx-halo" d="{path}"/><path d="{path}"/></svg>'
        )
    elif tile.changed is not None:
        cells = "".join(f'<i class="{"rx-on" if on else ""}"></i>' for on in tile.changed.tolist())
        picture += f'<span class="rx-strip" aria-hidden="true">{cells}</span>'
    return f"<figure><div>{picture}</div><figcaption>{text(tile.caption)}</figcaption></figure>"


def _group(choice: Choice, label: str, columns: int, style: str, more: str, buttons: Iterable[str]) -> str:
    return (
        f'<div class="{style}" role="group" aria-label="{text(label)}" data-choose="{choice}" data-columns="{columns}"'
        f' style="--columns: {columns};{more}">{"".join(buttons)}</div>'
    )


def _button(number: int, name: str, pressed: bool, place: int, has_pressed: bool, content: str = "") -> str:
    """A button of a group; the Tab key reaches one of them, the pressed one or the first, and arrows the others."""
    reached = pressed if has_pressed else place == 0
    return (
        f'<button type="button" data-number="{number}" aria-pressed="{str(pressed).lower()}" aria-label="{text(name)}"'
        f' title="{text(name)}" tabindex="{0 if reached else -1}">{content}</button>'
    )


def _token_name(token: int, space: LatentSpace) -> str:
    if space.grid is None:
        return f"token {token}"
    row, column = divmod(token, space.grid[1])
    return f"token {token}, row {row + 1}, column {column + 1}"


def _png(pixels: Tensor) -> str:
    return _address(as_pil(pixels[None])[0], "PNG")


def _thumbnail(pixels: Tensor) -> str:
    picture = as_pil(pixels[None])[0]
    if picture.width > _THUMBNAIL:
        picture = picture.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return _address(picture, "PNG")


def _address(picture: Image.Image, kind: str) -> str:
    held = io.BytesIO()
    picture.save(held, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode()}"
