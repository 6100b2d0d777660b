"""Precision: what "auto" means on each device, and that a run prints, records and reproduces it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import tomli
import torch
from attrs import field, frozen

import robustok_core.runs.accelerator
from processes import one_and_two
from project import Project, assert_same_weights, recipe_of
from robustok_core import Recipe, RobustokError
from robustok_core.runs.files import read_json
from robustok_core.runs.precision import Precision, autocast, computes_bf16, settled

CPU = torch.device("cpu")


@pytest.fixture
def this_device(monkeypatch):
    """Makes this machine's device compute bfloat16 natively, or not."""

    def this_device(native: bool) -> None:
        monkeypatch.setattr(robustok_core.runs.accelerator, "computes_bf16", lambda device: native)

    return this_device


def with_precision(out: Path, precision: str = "auto") -> Project:
    return Project(out, run={"precision": precision})


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "native"),
    [(True, False, True), (False, True, True), (True, True, True), (False, False, False)],
)
def test_a_cpu_computes_bfloat16_if_it_has_instructions_for_it(monkeypatch, avx512_bf16, amx, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert computes_bf16(CPU) is native


def test_an_old_torch_and_unmeasured_devices_compute_float32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not computes_bf16(CPU)
    assert not computes_bf16(torch.device("mps"))


def test_a_gpu_that_emulates_bfloat16_does_not_compute_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not computes_bf16(torch.device("cuda"))


def test_autocast_does_what_an_option_says(monkeypatch):
    a = torch.ones(2, 2)
    for native in (True, False):
        monkeypatch.setattr("robustok_core.runs.precision.computes_bf16", lambda device, native=native: native)
        for precision, expected in {"no": False, "bf16": True, "auto": native}.items():
            with autocast(precision, CPU):
                assert ((a @ a).dtype == torch.bfloat16) is expected
        with torch.autocast("cpu", torch.bfloat16), autocast(None, CPU):
            assert (a @ a).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16), autocast("no", CPU):
            assert (a @ a).dtype == torch.float32


def precisions(table: object, path: tuple[object, ...] = ()) -> dict[tuple[object, ...], str]:
    """Every option called precision in a recipe's table, by its path."""
    pairs = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    found = {}
    for key, value in pairs:
        found |= {(*path, key): value} if key == "precision" else precisions(value, (*path, key))
    return found


LAPTOP = [
    "main_train",
    "post_train",
    "continuous_train",
    "continuous_post_train",
    "colour_train",
    "colour_post_train",
]


@pytest.mark.parametrize("name", LAPTOP)
def test_every_auto_of_a_laptop_recipe_is_settled_and_nothing_else(registry, name):
    recipe = Recipe.load(name).resolve(registry)
    before = precisions(recipe.table())
    after = precisions(settled(recipe, "bf16").table())
    assert list(before.values()).count("auto") >= 2
    assert after == {path: "bf16" if value == "auto" else value for path, value in before.items()}


@frozen(kw_only=True)
class Theirs:
    """A third-party configuration."""

    encoder: Precision = "auto"
    decoder: Precision | None = None
    precision: Literal["auto", "exact", "rough"] = "auto"
    method: str = "auto"
    sampling: dict[str, str] = field(factory=lambda: {"precision": "auto"})
    more: tuple[Theirs, ...] = ()


def test_auto_is_settled_exactly_in_options_of_type_precision():
    found = settled(Theirs(more=(Theirs(decoder="auto"), Theirs(encoder="no"))), "bf16")
    assert found == Theirs(encoder="bf16", more=(Theirs(encoder="bf16", decoder="bf16"), Theirs(encoder="no")))


def test_a_configuration_without_auto_is_unchanged(registry):
    recipe = Recipe.from_table(recipe_of()).resolve(registry)
    assert settled(recipe, "bf16") is recipe


def made_with(project: Project) -> dict[str, Any]:
    (stage,) = read_json(project.folder / "run.json")["stages"].values()
    (made,) = stage["made_with"]
    return made


@pytest.mark.parametrize(("native", "precision", "words"), [(True, "bf16", "bf16"), (False, "no", "float32")])
def test_auto_is_printed_and_recorded_and_equals_a_run_with_the_resulting_precision(
    this_device, tmp_path, native, precision, words
):
    this_device(native)
    project = with_precision(tmp_path).run()
    assert f"precision auto: {words}" in project.printed
    assert tomli.loads((project.folder / "recipe.toml").read_text())["run"]["precision"] == precision
    assert made_with(project)["auto_precision"] == precision
    again = with_precision(tmp_path, precision).run()
    assert "done before, unchanged" in again.printed
    assert "precision auto" not in again.printed
    named = with_precision(tmp_path / "named", precision).run()
    assert_same_weights(project.weights(), named.weights())
    assert made_with(named)["auto_precision"] is None


def test_a_device_with_another_auto_precision_runs_the_stages_again(this_device, tmp_path):
    this_device(True)
    project = with_precision(tmp_path)
    first = project.run().artifact("tokenizer")
    this_device(False)
    second = project.run().artifact("tokenizer")
    assert first != second
    assert first.exists()
    assert len(read_json(project.folder / "run.json")["stages"]) == 2
    this_device(True)
    assert project.run().artifact("tokenizer") == first


def test_fp16_is_refused_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RobustokError, match='"fp16" needs a CUDA device'):
        with_precision(tmp_path, "fp16").run()


def test_recipes_of_different_precision_run_one_after_another_in_one_program(tmp_path):
    first, second, third = (
        with_precision(tmp_path / str(number), precision).run().weights()
        for number, precision in enumerate(("no", "bf16", "no"))
    )
    assert_same_weights(first, third)
    assert [name for name in first if not torch.equal(first[name], second[name])]


def test_auto_is_float32_on_all_processes_if_one_has_no_bfloat16(tmp_path):
    one_and_two(Path(__file__).with_name("auto_on_two_processes.py"), tmp_path)
    found = {file.name: file.read_text() for file in tmp_path.glob("?-of-?")}
    assert found == {"0-of-1": "bf16", "0-of-2": "no", "1-of-2": "no"}
