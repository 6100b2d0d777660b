from __future__ import annotations

import re

import torch

from robustok_core.values.latents import LatentSpace
from robustok_explorer.drawing import Sheet, Tile
from robustok_explorer.markup import images_html, message_html, sheet_html, snippets_html, tokens_html
from robustok_explorer.snippets import Snippets

GRID = LatentSpace(kind="discrete", num_tokens=4, width=1, codebook_size=2, grid=(2, 2))
NO_GRID = LatentSpace(kind="discrete", num_tokens=5, width=1, codebook_size=2)
BLACK = torch.zeros(3, 8, 8, dtype=torch.uint8)
EVIL = """<script>alert("'&\x1b[31m"""


def test_names_are_text_wherever_they_stand():
    tile = Tile(pixels=BLACK, caption=EVIL, changed=torch.zeros(4, dtype=torch.bool))
    pages = [
        sheet_html(Sheet(rows={EVIL: [tile]}, space=GRID, lines=[EVIL])),
        message_html(EVIL),
        snippets_html(Snippets(python=EVIL, command=EVIL, files=[EVIL])),
        images_html(BLACK[None], [3], label=EVIL, chosen=3),
        tokens_html(GRID, BLACK, label=EVIL, choice="one", chosen=[0]),
    ]
    for page in pages:
        assert "<script" not in page
        assert 'alert("' not in page
        assert "&lt;script&gt;alert(" in page


def test_every_picture_says_what_it_is():
    tile = Tile(pixels=BLACK, caption="perturbed", changed=torch.tensor([1, 0, 0, 1], dtype=torch.bool))
    page = sheet_html(Sheet(rows={"bag, image 3": [tile]}, space=GRID))
    assert re.findall('alt="([^"]*)"', page) == ["bag, image 3, perturbed, 2 tokens marked"]


def test_tokens_without_places_in_the_image_are_marked_below_it():
    tile = Tile(pixels=BLACK, caption="perturbed", changed=torch.tensor([1, 0, 0, 1, 0], dtype=torch.bool))
    page = sheet_html(Sheet(rows={"bag": [tile]}, space=NO_GRID))
    assert re.findall('<i class="([^"]*)">', page) == ["rx-on", "", "", "rx-on", ""]


def test_the_tab_key_reaches_one_button_of_a_group():
    for page in (
        tokens_html(GRID, BLACK, label="tokens", choice="many", chosen=[]),
        tokens_html(GRID, BLACK, label="tokens", choice="many", chosen=[1, 2]),
        tokens_html(NO_GRID, BLACK, label="tokens", choice="one", chosen=[3]),
        images_html(BLACK.expand(3, -1, -1, -1), [4, 7, 9], label="images", chosen=7),
        images_html(BLACK.expand(3, -1, -1, -1), [4, 7, 9], label="images", chosen=1),
    ):
        assert page.count('tabindex="0"') == 1


def test_a_token_is_named_by_its_row_and_column():
    page = tokens_html(GRID, BLACK, label="tokens", choice="many", chosen=[2])
    assert 'aria-pressed="true" aria-label="token 2, row 2, column 1"' in page
    assert page.count('aria-pressed="true"') == 1
