"""Autocast and TF32 are off inside the block and restored outside it."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from project import TO_SAMPLES, Project
from robustok_core.kinds.nearest import distance_scores, product_scores
from robustok_core.values.full_precision import _switches, full_precision, tf32, without_tf32

CPU = torch.device("cpu")


def switch_values() -> list[object]:
    return [getattr(switch, name) for switch, name, _ in _switches()]


def is_off() -> bool:
    return switch_values() == [off for *_, off in _switches()]


@full_precision(CPU)
def fail_inside() -> None:
    raise RuntimeError("inside" if is_off() else "TF32 is on")


def test_tf32_is_off_inside_and_restored_afterwards() -> None:
    before = switch_values()
    assert not is_off(), "torch lets convolutions use TF32"
    with full_precision(CPU):
        assert is_off()
        with full_precision(CPU):
            assert is_off()
        assert is_off()
    assert switch_values() == before


def test_the_users_setting_is_restored_after_an_error() -> None:
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    before = switch_values()
    try:
        with pytest.raises(RuntimeError, match="inside"):
            fail_inside()
        assert switch_values() == before
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(chosen)


def test_autocast_is_off_inside_and_the_meta_device_needs_none() -> None:
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with full_precision(CPU):
            assert (ones @ ones).dtype == torch.float32
        with full_precision(torch.device("meta")):
            assert is_off()
        assert (ones @ ones).dtype == torch.bfloat16


@pytest.mark.parametrize("on", [True, False])
def test_tf32_is_on_or_off_for_all_inside_except_in_full_precision(on: bool) -> None:
    cuda, before = torch.device("cuda"), switch_values()
    with tf32(cuda, on=on):
        assert is_off() != on
        assert len(set(switch_values())) == 1
        with full_precision(CPU):
            assert is_off()
        assert is_off() != on
    assert switch_values() == before


def test_without_tf32_autocast_stays_as_it_is() -> None:
    before, ones = switch_values(), torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16), without_tf32():
        assert is_off()
        assert (ones @ ones).dtype == torch.bfloat16
    assert switch_values() == before


class Products(TorchDispatchMode):
    """Notes whether TF32 was off at each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.off: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.addmm.default:
            self.off.append(is_off())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scores", [distance_scores, product_scores])
def test_codewords_are_compared_in_float32_where_training_uses_tf32(scores) -> None:
    with tf32(torch.device("cuda"), on=True), Products() as products:
        next(scores(torch.randn(4, 3), torch.randn(5, 3)))
        assert not is_off()
    assert products.off == [True]


def test_all_of_a_run_but_the_steps_of_its_trainings_is_without_tf32(tmp_path) -> None:
    seen = set()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: seen.add(is_off()))
    try:
        Project(tmp_path, TO_SAMPLES).run()  # on a CPU, training does not turn it on
    finally:
        handle.remove()
    assert seen == {True}
    assert not is_off()


def test_a_cpu_has_no_tf32() -> None:
    before = switch_values()
    with tf32(CPU, on=False):
        assert switch_values() == before
