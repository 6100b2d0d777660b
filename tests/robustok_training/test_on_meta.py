"""The meta device answers as a GPU would."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robustok_training.on_meta import META, measuring


def network(device: torch.device | str) -> nn.Module:
    with torch.device(device):
        return nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 32))


def test_operations_are_those_of_the_real_computation():
    with measuring() as meter:
        network(META)(torch.zeros(8, 32, device=META)).sum().backward()
    with FlopCounterMode(display=False) as counter:
        network("cpu")(torch.zeros(8, 32)).sum().backward()
    assert meter.measured.flops == counter.get_total_flops() > 0


def test_what_is_kept_for_the_backward_pass_is_alive_and_what_is_not_is_not():
    x = torch.zeros(1000, device=META)
    with measuring() as meter:
        for _ in range(10):
            x + 1
    assert meter.measured.peak_bytes == 4000
    assert meter.measured.read_bytes == 4000
    with measuring() as meter:
        kept = [x + 1 for _ in range(10)]
    assert meter.measured.peak_bytes == 4000 * len(kept)


def test_what_is_made_counts_where_torch_gives_it_the_address_of_what_was_there_before():
    inputs = [torch.zeros(1000, device=META) for _ in range(50)]
    with measuring() as meter:
        for x in inputs:
            x + 1
        del x
        inputs.clear()
        kept = [torch.zeros(1000, device=META) for _ in range(50)]
    assert meter.measured.read_bytes == 4000 * 50
    assert meter.measured.peak_bytes == 4000 * len(kept)


def test_what_is_read_counts_while_it_exists():
    x = torch.zeros(100, device=META)
    with measuring() as meter:
        for _ in range(10):
            x + torch.tensor([1.0] * 100, device="cpu")[0]
    assert meter.measured.read_bytes == 400 + 400


def test_matrix_products_are_in_bfloat16_and_norms_in_float32_as_cudas_autocast_says():
    with measuring(bf16=True) as meter:
        x = torch.zeros(2, 32, device=META)
        hidden = network(META)[0](x)
        assert hidden.dtype == torch.bfloat16
        assert F.layer_norm(hidden, (64,)).dtype == torch.float32
        assert F.gelu(hidden).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert F.linear(x, x).dtype == torch.float32
    assert meter.measured.cast_bytes == 2 * (32 * 64 + 64)
    with measuring():
        assert network(META)(torch.zeros(2, 32, device=META)).dtype == torch.float32


def test_attention_is_the_fused_kernel_that_keeps_no_scores():
    q = torch.zeros(1, 1, 1024, 8, device=META, requires_grad=True)
    with measuring() as meter:
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    assert meter.measured.peak_bytes < 1024 * 1024


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda x: bool((x > 0).all()), True),
        (lambda x: x.sum().item(), 0.0),
        (lambda x: x[x > 0].shape, (6,)),
        (lambda x: x.nonzero().shape, (6, 2)),
        (lambda x: x.unique().shape, (6,)),
    ],
)
def test_a_question_about_values_has_the_most_expensive_answer(ask, answer):
    with measuring():
        assert ask(torch.zeros(2, 3, device=META)) == answer


def test_elsewhere_values_are_values():
    with measuring(bf16=False):
        assert torch.tensor([1, 1, 2]).unique().tolist() == [1, 2]
