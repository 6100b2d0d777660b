"""Several threads of a CPU: they compute the same each time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from project import CONTINUOUS, Project, contents
from robustok_core.values.devices import repeatable

STAGES = ("train_tokenizer", "tokenize", "train_generator")
SIZE = {"width": 256, "depth": 1, "num_heads": 4}  # tensors that are large enough for torch to divide among threads


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("generator", "precision"),
    [
        *(("rar", precision) for precision in ("no", "bf16")),
        *((generator, "no") for generator in ("llamagen_gpt", "maskgit", "flow_transformer", "dit")),
    ],
)
def test_on_two_threads_a_run_makes_the_same_each_time(tmp_path, generator, precision):
    of_vectors = CONTINUOUS if generator in ("flow_transformer", "dit") else {}
    changes = {**of_vectors, "generator": {"use": generator, **SIZE}, "run": {"precision": precision}}
    made = []
    for name in ("first", "second"):
        made.append(contents(Project(tmp_path / name, STAGES, **changes).run().folder / "artifacts"))
    weights = [name for name in made[0] if name.endswith("model.safetensors")]
    assert len(weights) == 2  # the tokenizer's and the generator's
    assert made[0].keys() == made[1].keys()
    assert not [name for name in weights if made[0][name] != made[1][name]]


@pytest.mark.usefixtures("two_threads")
def test_what_a_plugin_indexes_has_the_same_gradient_each_time():
    rows, weights = torch.arange(20_000).remainder(7), torch.linspace(-1.0, 1.0, 20_000 * 8).view(20_000, 8)

    def gradient() -> torch.Tensor:
        table = torch.ones(7, 8, requires_grad=True)
        (table[rows] * weights).sum().backward()
        return table.grad

    with repeatable(torch.device("cpu")):
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(20))


@pytest.mark.parametrize("before", [0, 1, 2], ids=["default", "warn", "error"])
def test_a_program_keeps_its_own_setting(before):
    torch.set_deterministic_debug_mode(before)
    try:
        with repeatable(torch.device("cpu")):
            assert torch.get_deterministic_debug_mode() == max(1, before)
        with repeatable(torch.device("meta")):
            assert torch.get_deterministic_debug_mode() == before
        assert torch.get_deterministic_debug_mode() == before
        assert torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.set_deterministic_debug_mode(0)
