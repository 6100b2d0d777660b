"""What is said where a generator's latents are not those that a tokenizer decodes."""

from __future__ import annotations

import pytest

from robustok_core import LatentSpace, RobustokError
from robustok_toolkit.generating import check_space


def test_spaces_that_differ_in_their_grid_alone_are_told_apart():
    row, grid = (LatentSpace(kind="continuous", num_tokens=16, width=4, grid=grid) for grid in (None, (4, 4)))
    with pytest.raises(RobustokError, match=r"another space \(no grid\) than the .* decodes \(a grid of 4 x 4\)"):
        check_space("flow_transformer", row, grid, "here")
