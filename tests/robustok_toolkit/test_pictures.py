from __future__ import annotations

import numpy as np
import pytest
import torch

from robustok_core import RobustokError
from robustok_toolkit.pictures import read_rows, rows_by_class, save_png, save_rows


def test_rows_of_pictures_are_read_back_with_their_captions(tmp_path):
    """Also with captions that PNG's own texts cannot hold; small pictures come back enlarged."""
    rows = {
        "input": torch.randint(0, 256, (3, 3, 32, 32)).to(torch.uint8),
        "σ = 0.9, 🙂": torch.zeros(2, 3, 32, 32).byte(),
    }
    save_rows(tmp_path / "rows.png", rows)
    found = read_rows(tmp_path / "rows.png")
    assert {caption: len(pictures) for caption, pictures in found.items()} == {"input": 3, "σ = 0.9, 🙂": 2}
    for picture, written in zip(found["input"], rows["input"], strict=True):
        assert torch.equal(torch.from_numpy(picture[::2, ::2].copy()).permute(2, 0, 1), written)


def test_a_class_may_have_a_name_in_any_script(tmp_path):
    pictures = [np.zeros((8, 8, 3), np.uint8)] * 2
    save_rows(tmp_path / "rows.png", rows_by_class(pictures, torch.tensor([0, 1]), ["猫", "кошка"], columns=1))
    assert list(read_rows(tmp_path / "rows.png")) == ["0 猫", "1 кошка"]


def test_a_picture_without_captions_or_one_that_is_damaged_is_refused(tmp_path):
    save_png(tmp_path / "plain.png", torch.zeros(4, 4, 3).byte().numpy())
    with pytest.raises(RobustokError, match="without the captions"):
        read_rows(tmp_path / "plain.png")
    (tmp_path / "plain.png").write_bytes(b"\x89PNG")
    with pytest.raises(RobustokError, match="cannot be read"):
        read_rows(tmp_path / "plain.png")
    save_png(tmp_path / "odd.png", torch.zeros(4, 4, 3).byte().numpy(), about={"robustok rows": "[1]"})
    with pytest.raises(RobustokError, match=r"odd\.png"):
        read_rows(tmp_path / "odd.png")


def test_of_many_classes_some_are_shown_from_first_to_last():
    labels = torch.arange(100)
    pictures = [np.full((8, 8, 3), number, np.uint8) for number in range(100)]
    rows = rows_by_class(pictures, labels, [str(number) for number in range(100)], columns=2, most_classes=4)
    assert list(rows) == ["0", "33", "66", "99"]
    assert len(rows_by_class(pictures, labels, [str(number) for number in range(100)], 2, most_classes=100)) == 100
