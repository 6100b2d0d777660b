"""Samplers' steps that are captured or compiled sample what eager steps do.

There is no CUDA graph on a CPU. `traced` stands for one: it runs the same operations again on the same memory, so that
a number of Python's that a step reads stays what it was when the step was captured.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators import decoding, repeated_step
from robustok_generators.dit import DiT, DiTConfig, DiTSampling
from robustok_generators.flow_sampling import FlowSampling
from robustok_generators.flow_transformer import FlowTransformer, FlowTransformerConfig
from robustok_generators.maskgit import MaskGIT, MaskGITConfig, MaskGITSampling
from robustok_generators.repeated_step import RepeatedStep, repeated
from robustok_generators.token_sampling import TokenSampling
from waiting import waits_as_if_queued

LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])
GUIDED = Guidance(scale=3.0, start=0.2)
#: More tokens than the smallest window, 16, and the modulations of RAR in several tables.
CODES = LatentSpace(kind="discrete", num_tokens=36, width=4, codebook_size=20, grid=(6, 6))
VECTORS = LatentSpace(kind="continuous", num_tokens=6, width=4, grid=(2, 3))
SMALL = {"width": 16, "depth": 2, "num_heads": 2}
CPU = torch.device("cpu")


def traced(step, inputs):
    """Captures a step as its operations."""

    def function(*given):  # make_fx does not take methods
        return step(*given)

    return make_fx(function)(*inputs)


@contextmanager
def capturing() -> Iterator[list[Any]]:
    """Inside the block, all steps are captured on the CPU as on CUDA; gives a list of what was captured."""
    captured_steps = []

    def capture(step, inputs):
        captured_steps.append(step)
        return traced(step, inputs)

    def as_on_cuda(step, *, captured, compiled):
        return RepeatedStep(step, captured=True, compiled=compiled)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeated_step, "capture", capture)
        patch.setattr(repeated_step, "RepeatedStep", as_on_cuda)
        patch.setattr(decoding, "fixes_shapes", lambda execution, device: True)
        yield captured_steps


@pytest.mark.parametrize("name", ["rar", "llamagen_gpt", "gigatok_gpt"])
def test_captured_steps_draw_the_codes_of_eager_ones(make, name, monkeypatch):
    monkeypatch.setattr("robustok_generators.rar_decoding._ROWS", 40)  # as for many classes: several tables
    generator, draws = make(name, CODES), Draws.for_rows(1, 7)
    options = {"guidance": GUIDED, "keep": Keep(latents=Latents(codes=draws.integers(20, 36)), sigma=0.3)}
    eager = generator.sample(LABELS, draws, sampling=TokenSampling(execution="eager"), **options).codes
    with capturing() as captured_steps:
        captured = generator.sample(LABELS, draws, sampling=TokenSampling(execution="graph"), **options).codes
    assert torch.equal(captured, eager)
    assert len(captured_steps) == 3, "one capture for each size of the window: 16, 32 and 48"


@torch.no_grad()
@pytest.mark.parametrize("name", ["rar", "llamagen_gpt", "gigatok_gpt"])
def test_steps_of_a_fixed_shape_have_the_logits_of_a_full_pass(make, name):
    generator, codes = make(name, CODES), Draws.for_rows(2, 7).integers(20, 36)
    whole = generator(codes, LABELS)
    with decoding.decoding_as("compile", generator.decoding, LABELS) as steps, repeated_step.uncompiled():
        logits = [steps.start(), *(steps.advance(codes[:, i]) for i in range(35))]
    torch.testing.assert_close(torch.stack(logits, dim=1), whole[:, :36], atol=2e-5, rtol=1e-5)


def flow() -> FlowTransformer:
    return random_weights(FlowTransformer(FlowTransformerConfig(**SMALL, norm="rms", rope=True), VECTORS, 5))


def random_weights(model: nn.Module) -> nn.Module:
    numbers = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=numbers)
    return model.eval()


#: How each other sampler runs, in whose steps the number of rows changes where guidance starts.
OTHERS = {
    "heun": (flow, FlowSampling, {"method": "heun2", "steps": 6}),
    "euler_maruyama": (flow, FlowSampling, {"method": "euler_maruyama", "steps": 6}),
    "dit": (lambda: random_weights(DiT(DiTConfig(**SMALL), VECTORS, 5)), DiTSampling, {"steps": 6}),
    "maskgit": (lambda: random_weights(MaskGIT(MaskGITConfig(**SMALL), CODES, 5)), MaskGITSampling, {"steps": 6}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_captured_steps_of_other_samplers_sample_what_eager_ones_do(name):
    build, options, chosen = OTHERS[name]
    model, draws = build(), Draws.for_rows(1, 7)
    eager = model.sample(LABELS, draws, guidance=GUIDED, sampling=options(**chosen))
    with capturing() as captured_steps:
        captured = model.sample(LABELS, draws, guidance=GUIDED, sampling=options(**chosen, execution="graph"))
    assert captured_steps
    for found, expected in ((captured.codes, eager.codes), (captured.vectors, eager.vectors)):
        assert (found is None and expected is None) or torch.equal(found, expected)


@pytest.mark.parametrize(
    ("guidance", "captures"), [(Guidance(), 1), (Guidance(scale=3.0), 1), (Guidance(scale=3.0, start=0.2, stop=0.7), 2)]
)
def test_a_sampler_that_takes_images_one_by_one_captures_its_step_once(guidance, captures):
    model, draws, options = flow(), Draws.for_rows(1, 7), {"method": "dopri5", "tolerance": 1e-2}
    eager = model.sample(LABELS, draws, guidance=guidance, sampling=FlowSampling(**options))
    with capturing() as captured_steps:
        sampling = FlowSampling(**options, execution="graph")
        captured = model.sample(LABELS, draws, guidance=guidance, sampling=sampling)
    assert torch.equal(captured.vectors, eager.vectors)
    assert len(captured_steps) == captures, "one for each number of rows"


def test_compiled_steps_draw_the_codes_of_eager_ones(make):
    """By the compiler, of blocks that share what is compiled."""
    generator, draws = make("llamagen_gpt"), Draws.for_rows(1, 7)
    eager = generator.sample(LABELS, draws, guidance=GUIDED).codes
    with torch._dynamo.config.patch(error_on_recompile=True):
        codes = generator.sample(LABELS, draws, guidance=GUIDED, sampling=TokenSampling(execution="compile")).codes
    assert torch.equal(codes, eager)
    assert all(layer._compiled_call_impl is None for layer in generator.layers)


@pytest.mark.parametrize("name", [*OTHERS, "rar"])
def test_blocks_can_be_compiled_without_breaks_in_their_graphs(name, make, monkeypatch):
    """What the compiler reads, not what it makes of it, which takes long."""

    def compiled(block, **options):
        block._compiled_call_impl = torch.compile(block._call_impl, backend="eager", fullgraph=True, **options)

    monkeypatch.setattr(nn.Module, "compile", compiled)
    build, options, chosen = OTHERS.get(name, (lambda: make("rar", CODES), TokenSampling, {}))
    model, draws = build(), Draws.for_rows(1, 7)
    eager, found = (
        model.sample(LABELS, draws, guidance=GUIDED, sampling=options(**chosen, execution=execution))
        for execution in ("eager", "compile")
    )
    if eager.codes is not None:
        assert torch.equal(found.codes, eager.codes)
    else:
        torch.testing.assert_close(found.vectors, eager.vectors)


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_the_first_call_of_each_shape_runs_as_it_is_and_results_are_not_overwritten():
    step, x = RepeatedStep(double, captured=True, compiled=False), torch.ones(3)
    with capturing() as captured_steps:
        results = [step(number * x) for number in range(4)]
        assert len(captured_steps) == 1
        results += [step(torch.ones(5)), step(torch.ones(5))]
    assert len(captured_steps) == 2
    assert [result.tolist() for result in results] == [[2.0 * number] * 3 for number in range(4)] + [[2.0] * 5] * 2


def test_sampling_goes_on_where_a_capture_fails(monkeypatch, caplog):
    def capture(step, inputs):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(repeated_step, "capture", capture)
    step = RepeatedStep(double, captured=True, compiled=False)
    with caplog.at_level(logging.WARNING):
        assert [step(torch.full((1,), float(number))).item() for number in range(4)] == [0.0, 2.0, 4.0, 6.0]
    assert len(caplog.records) == 1
    assert "sampling goes on without a CUDA graph, which failed: CUDA error: operation not permitted" in caplog.text


def test_sampling_goes_on_where_compiling_fails(monkeypatch, caplog):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(
        nn.Module,
        "compile",
        lambda block, **_: setattr(block, "_compiled_call_impl", torch.compile(block._call_impl, backend=broken)),
    )
    layer = nn.Linear(3, 3)
    with repeated(layer.__call__, [layer], "compile", CPU) as step, caplog.at_level(logging.WARNING):
        found = [step(torch.ones(2, 3)) for _ in range(2)]
    assert torch.equal(found[0], layer(torch.ones(2, 3)))
    assert torch.equal(found[1], found[0])
    assert len(caplog.records) == 1
    assert "sampling goes on without torch.compile, which failed: no compiler here" in caplog.text


#: Compares a compiled block with itself; what is compiled is kept on disk.
COMPILED = """
import torch
from torch import nn
from robustok_generators.repeated_step import repeated
torch.manual_seed(0)
block, x = nn.Sequential(nn.Linear(40, 40), nn.GELU(), nn.Softmax(-1)).eval(), torch.randn(5, 40)
with torch.no_grad(), repeated(block.__call__, [block], "compile", x.device) as step:
    torch.testing.assert_close(step(x), block._call_impl(x))
"""


def test_what_is_kept_on_disk_is_not_used_for_vectors_of_another_length(tmp_path):
    for capability in ("avx2", "default", "avx512"):
        kept = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "ATEN_CPU_CAPABILITY": capability}
        ended = subprocess.run([sys.executable, "-c", COMPILED], env=kept, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (capability, ended.stderr)


def test_a_fault_of_the_step_itself_is_raised():
    layer = nn.Linear(3, 3)
    with repeated(layer.__call__, [layer], "compile", CPU) as step, pytest.raises(RuntimeError, match="shapes"):
        step(torch.ones(2, 4))


def test_blocks_that_are_compiled_for_training_sample_as_they_are():
    layer = nn.Linear(3, 3)
    layer.compile(backend="eager")
    compiled = layer._compiled_call_impl
    with repeated(layer.__call__, [layer], "graph", CPU):
        assert layer._compiled_call_impl is None
    assert layer._compiled_call_impl is compiled


def waits(model, sampling) -> int:
    with waits_as_if_queued() as found, repeated_step.uncompiled():
        model.sample(LABELS, Draws.for_rows(1, 7), guidance=GUIDED, sampling=sampling)
    return len(found)


@pytest.mark.parametrize("execution", ["eager", "compile"])
@pytest.mark.parametrize("name", ["rar", "llamagen_gpt", "gigatok_gpt"])
def test_no_code_waits_for_the_device(make, name, execution):
    """Only the beginning does: more codes wait no more often."""
    few = LatentSpace(kind="discrete", num_tokens=12, width=4, codebook_size=20, grid=(3, 4))
    sampling = TokenSampling(execution=execution, top_k=5, top_p=0.9)
    assert waits(make(name, CODES), sampling) == waits(make(name, few), sampling)


@pytest.mark.parametrize("name", OTHERS)
def test_no_step_waits_for_the_device(name):
    build, options, chosen = OTHERS[name]
    assert waits(build(), options(**chosen)) == waits(build(), options(**{**chosen, "steps": 12}))
