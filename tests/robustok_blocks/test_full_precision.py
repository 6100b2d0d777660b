"""Inside the block neither autocast nor TF32 is on; outside it all is as it was."""

from __future__ import annotations

import pytest
import torch

from robustok_blocks.full_precision import _switches, full_precision

CPU = torch.device("cpu")


def said() -> list[object]:
    return [getattr(switch, name) for switch, name, _ in _switches()]


def is_off() -> bool:
    return said() == [off for *_, off in _switches()]


@full_precision(CPU)
def fail_inside() -> None:
    raise RuntimeError("inside" if is_off() else "TF32 is on")


def test_tf32_is_off_inside_and_as_it_was_behind() -> None:
    before = said()
    assert not is_off(), "torch lets convolutions use TF32"
    with full_precision(CPU):
        assert is_off()
        with full_precision(CPU):
            assert is_off()
        assert is_off()
    assert said() == before


def test_what_the_user_chose_comes_back_after_an_error() -> None:
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    before = said()
    try:
        with pytest.raises(RuntimeError, match="inside"):
            fail_inside()
        assert said() == before
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(chosen)


def test_autocast_is_off_inside_and_the_meta_device_has_none() -> None:
    one = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with full_precision(CPU):
            assert (one @ one).dtype == torch.float32
        with full_precision(torch.device("meta")):
            assert is_off()
        assert (one @ one).dtype == torch.bfloat16
