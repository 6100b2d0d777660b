"""Which options of speed fit which run."""

from __future__ import annotations

import pytest

from robustok_core import RobustokError
from robustok_core.values.speed import Speed


def test_blocks_of_divided_weights_are_left_as_they_are_and_whoever_asks_for_more_is_told():
    divided = Speed(compile="auto", channels_last="auto", activation_checkpointing=True).with_divided_weights()
    assert divided == Speed(compile="off", channels_last="off", activation_checkpointing=True)
    for name in ("compile", "channels_last"):
        with pytest.raises(RobustokError, match=f"{name} is on, and these weights are divided"):
            Speed(**{name: "on"}).with_divided_weights()
