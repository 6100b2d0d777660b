"""The flow transformer computes and samples what the published code does, read from published-style files."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.recipe.source import parse_override
from robustok_core.runs.components import load_component, save_component
from robustok_core.runs.files import write_tensors
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Latents, LatentSpace
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.flow_path import between, velocity_between
from robustok_generators.flow_sampling import FlowSampling, integrate

PARITY = Path(__file__).parents[1] / "parity"
FILES = {"sit": "sit1d_a", "lightningdit": "lightningdit_a"}
IMPORTERS = list(FILES)
NONE = Guidance()


def tokens(images: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, C) of maps (B, C, h, w)."""
    return rearrange(images, "b c h w -> b (h w) c") if images.ndim == 4 else images


class Case:
    """A parity file: its weights under the published names, inputs, outputs and tolerances."""

    def __init__(self, importer: str) -> None:
        self.limits = json.loads((PARITY / f"{FILES[importer]}.json").read_text())["tolerance"]
        tensors = load_file(PARITY / f"{FILES[importer]}.safetensors")
        self.weights = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
        self.outputs = {key[4:]: value for key, value in tensors.items() if key.startswith("out.")}
        self.inputs = {key[3:]: tokens(value) for key, value in tensors.items() if key.startswith("in.")}
        self.x, self.t, self.labels = (self.inputs[name] for name in ("x", "t", "y"))
        self.null = torch.full_like(self.labels, 10)

    def check(self, name: str, actual: torch.Tensor) -> None:
        limits = self.limits[name]
        expected = tokens(self.outputs[name])
        torch.testing.assert_close(actual, expected, atol=limits["atol"], rtol=limits["rtol"])


def load(importer: str, file: Path, **options: object):
    table = {"use": importer, "num_heads": 4, **options}
    return load_registry().build("importer", table).load(file, load_registry())


def imported(importer: str, folder: Path, **options: object):
    case = Case(importer)
    save_file(case.weights, folder / "file.safetensors")
    return case, *load(importer, folder / "file.safetensors", **options)


@torch.no_grad()
def sampled(generator, case: Case, guidance: Guidance = NONE, **sampling: object) -> torch.Tensor:
    """Samples from the noise in the file."""
    velocity = GuidedVelocity(generator.velocity, case.labels, null_label=10, guidance=guidance, channels=None)
    return integrate(velocity, case.x, FlowSampling(**sampling), noise=lambda step: torch.nan)


# --- what they compute ----------------------------------------------------------------------------


@torch.no_grad()
def test_sit_computes_what_the_published_code_computes(tmp_path):
    case, _, generator, _ = imported("sit", tmp_path)
    case.check("velocity", generator(case.x, case.t, case.labels))
    case.check("velocity_uncond", generator(case.x, case.t, case.null))


@torch.no_grad()
def test_lightningdit_computes_what_the_published_code_computes_with_time_reversed(tmp_path):
    case, _, generator, _ = imported("lightningdit", tmp_path)
    case.check("velocity", -generator(case.x, 1 - case.t, case.labels))
    case.check("velocity_uncond", -generator(case.x, 1 - case.t, case.null))


@pytest.mark.parametrize("importer", IMPORTERS)
def test_fixed_positions_of_a_new_model_are_the_published_ones(importer, tmp_path):
    case, table, _, _ = imported(importer, tmp_path)
    grid = (4, 4) if importer == "lightningdit" else None
    space = LatentSpace(kind="continuous", num_tokens=case.x.shape[1], width=8, grid=grid)
    new = load_registry().build("generator", table, space, 10)
    torch.testing.assert_close(new.positions, case.weights["pos_embed"], atol=1e-6, rtol=0)
    if importer == "sit":
        case.check("pos_embed_sincos", new.positions)
    else:
        turns = new.rotations.repeat_interleave(2, dim=1)
        torch.testing.assert_close(turns[..., 0], case.weights["feat_rope.freqs_cos"], atol=1e-6, rtol=0)
        torch.testing.assert_close(turns[..., 1], case.weights["feat_rope.freqs_sin"], atol=1e-6, rtol=0)


def test_the_path_is_the_published_one_with_time_reversed():
    case = Case("lightningdit")
    noise, data = case.inputs["x0"], case.inputs["x1"]
    case.check("path_xt", between(data, noise, (1 - case.t)[:, None, None]))
    case.check("path_ut", -velocity_between(data, noise))


# --- what they sample -----------------------------------------------------------------------------


@pytest.mark.parametrize(("importer", "method"), [("sit", "euler"), ("sit", "heun"), ("lightningdit", "euler")])
def test_the_published_noise_becomes_the_published_latents(importer, method, tmp_path):
    case, _, generator, _ = imported(importer, tmp_path)
    case.check(f"{method}4", sampled(generator, case, method=method, steps=4))


@torch.no_grad()
def test_lightningdit_guides_only_the_first_three_channels(tmp_path):
    case, table, generator, _ = imported("lightningdit", tmp_path)
    assert table["guided_channels"] == 3
    expected = tokens(case.outputs["forward_with_cfg3"])
    for row, t in enumerate(case.t.tolist()):
        label = case.labels[row : row + 1]
        velocity = GuidedVelocity(
            generator.velocity, label, null_label=10, guidance=Guidance(scale=3.0), channels=table["guided_channels"]
        )
        velocities = -velocity(case.x[row : row + 1], 1 - t)
        torch.testing.assert_close(velocities, expected[row : row + 1], atol=1e-4, rtol=1e-4)
        assert torch.equal(expected[row, :, :3], expected[row + 3, :, :3])  # the other half of the file: unconditional


@pytest.mark.parametrize(("importer", "number"), [("sit", 5), ("lightningdit", 6)])
def test_every_output_is_compared(importer, number):
    assert len(Case(importer).outputs) == number


# --- import and export ----------------------------------------------------------------------------


def test_the_size_of_a_sit_is_read_from_its_weights(tmp_path):
    _, table, generator, report = imported("sit", tmp_path)
    sizes = {"width": 32, "depth": 2, "num_heads": 4, "mlp_width": 128, "rope": False, "direction": "noise"}
    assert sizes.items() <= table.items()
    assert generator.space == LatentSpace(kind="continuous", num_tokens=6, width=8)
    assert (generator.num_classes, generator.knows_null_class, generator.training) == (10, True, False)
    assert "linear" in report["path"]


def test_the_size_of_a_lightningdit_is_read_from_its_weights(tmp_path):
    _, table, generator, _ = imported("lightningdit", tmp_path)
    sizes = {"width": 32, "depth": 2, "mlp_width": 85, "norm": "rms", "mlp": "swiglu", "rope": True}
    assert sizes.items() <= table.items()
    assert table["direction"] == "data"
    assert generator.space == LatentSpace(kind="continuous", num_tokens=16, width=8, grid=(4, 4))


@pytest.mark.parametrize("importer", IMPORTERS)
def test_export_is_the_inverse_of_import(importer, tmp_path):
    case, _, generator, _ = imported(importer, tmp_path)
    exported = load_registry().build("importer", {"use": importer}).export(generator)
    assert exported.keys() == case.weights.keys()
    assert all(torch.equal(exported[key], value) for key, value in case.weights.items())


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("statistics", [{"mean": [2.3]}, {"mean": [0.1 * i for i in range(8)], "std": [0.7]}])
def test_export_prints_the_import_options_that_restore_the_statistics(importer, statistics, tmp_path, capsys):
    _, table, generator, _ = imported(importer, tmp_path, **statistics)
    write_tensors(
        tmp_path / "again.safetensors", load_registry().build("importer", {"use": importer}).export(generator)
    )
    message = capsys.readouterr().err
    assert "format does not hold the statistics of the latents" in message
    options = dict(parse_override(word) for word in shlex.split(message.partition("--set")[2]) if word != "--set")
    again = load(importer, tmp_path / "again.safetensors", **options)
    assert again[0] == table
    assert all(torch.equal(value, generator.state_dict()[key]) for key, value in again[1].state_dict().items())


@pytest.mark.parametrize("importer", IMPORTERS)
def test_export_prints_nothing_if_no_statistics_are_lost(importer, tmp_path, capsys):
    load_registry().build("importer", {"use": importer}).export(imported(importer, tmp_path)[2])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "mean 0 (not given), deviation 1 (not given)"),
        ({"mean": [0.5]}, "mean [0.5], deviation 1 (not given)"),
        ({"mean": [0.5], "std": [2.0]}, "mean [0.5], deviation [2.0]"),
    ],
)
def test_the_report_says_which_statistics_were_given(importer, options, expected, tmp_path):
    assert imported(importer, tmp_path, **options)[3]["statistics"].partition(": ")[0] == expected


@pytest.mark.parametrize("importer", IMPORTERS)
def test_an_imported_generator_can_be_saved_as_an_artifact(importer, tmp_path):
    case, table, generator, _ = imported(importer, tmp_path, mean=[0.5], std=[2.0])
    (tmp_path / "artifact").mkdir()
    save_component(tmp_path / "artifact", "generator", table, generator)
    loaded = load_component(load_registry(), tmp_path / "artifact")
    assert loaded.space == generator.space
    options = {"guidance": Guidance(scale=2.0), "sampling": FlowSampling(steps=2)}
    actual, expected = (g.sample(case.labels, Draws.for_rows(1, 3), **options).vectors for g in (loaded, generator))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [({"mean": [0.5], "std": [2.0]}, [0.5] * 8, [2.0] * 8), ({"mean": list(range(8))}, list(range(8)), [1.0] * 8)],
)
def test_statistics_of_the_latents_are_one_number_or_one_per_channel(options, mean, std, tmp_path):
    case, _, plain, _ = imported("sit", tmp_path)
    generator = load("sit", tmp_path / "file.safetensors", **options)[1]
    sampled, normalised = (
        g.sample(case.labels, Draws.for_rows(1, 3), guidance=NONE, sampling=FlowSampling(steps=2)).vectors
        for g in (generator, plain)
    )
    torch.testing.assert_close(sampled, normalised * torch.tensor(std) + torch.tensor(mean))


def test_the_published_file_of_statistics_is_read(tmp_path):
    statistics = {"mean": torch.arange(8.0).view(1, 8, 1, 1), "std": torch.arange(1.0, 9.0).view(1, 8, 1, 1)}
    torch.save(statistics, tmp_path / "latents_stats.pt")
    file = str(tmp_path / "latents_stats.pt")
    _, _, generator, report = imported("lightningdit", tmp_path, statistics=file)
    assert report["statistics"] == f"mean and std of {file}"
    assert torch.equal(generator.latent_mean, torch.arange(8.0))
    assert torch.equal(generator.latent_std, torch.arange(1.0, 9.0))


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"mean": [1.0, 2.0, 3.0]}, "expected 8 means and deviations"),
        ({"std": [1e-300]}, "must be positive"),  # 0 in float32
    ],
)
def test_options_that_are_not_statistics_are_refused(importer, options, what, tmp_path):
    with pytest.raises(RobustokError, match=what) as caught:
        imported(importer, tmp_path, **options)
    assert caught.value.where == "the importer's mean and std"


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan])
def test_a_deviation_that_is_not_positive_is_refused_before_a_file_is_read(std):
    with pytest.raises(RobustokError, match="out of range"):
        load_registry().build("importer", {"use": "sit", "std": [1.0, std]})


@pytest.mark.parametrize(
    ("name", "value"), [("mean", math.nan), ("mean", math.inf), ("std", 0.0), ("std", -1.0), ("std", math.nan)]
)
def test_a_file_without_statistics_is_refused(name, value, tmp_path):
    statistics = {"mean": torch.zeros(1, 8, 1, 1), "std": torch.ones(1, 8, 1, 1)}
    statistics[name][0, 3] = value
    torch.save(statistics, tmp_path / "latents_stats.pt")
    with pytest.raises(RobustokError, match="not statistics of latents") as caught:
        imported("lightningdit", tmp_path, statistics=str(tmp_path / "latents_stats.pt"))
    assert caught.value.where == str(tmp_path / "latents_stats.pt")


@pytest.mark.parametrize("name", ["mean", "std"])
def test_statistics_from_a_file_and_as_options_are_refused(name):
    with pytest.raises(RobustokError, match="set either statistics or mean and std"):
        load_registry().build("importer", {"use": "lightningdit", "statistics": "latents_stats.pt", name: [1.0]})


def test_an_unknown_number_of_heads_must_be_given(tmp_path):
    imported("sit", tmp_path)
    importer = load_registry().build("importer", {"use": "sit"})
    with pytest.raises(RobustokError, match="number of heads of a model of width 32 does not follow") as caught:
        importer.load(tmp_path / "file.safetensors", load_registry())
    assert "num_heads" in caught.value.hint


@pytest.mark.parametrize("importer", IMPORTERS)
def test_the_file_of_another_model_is_refused(importer, tmp_path):
    other = {"sit": "lightningdit", "lightningdit": "sit"}[importer]
    save_file(Case(other).weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=r"this is not a .*: it lacks") as caught:
        load(importer, tmp_path / "file.safetensors")
    assert caught.value.where == str(tmp_path / "file.safetensors")


@pytest.mark.parametrize("importer", IMPORTERS)
def test_missing_and_unexpected_weights_are_named_as_published(importer, tmp_path):
    weights = Case(importer).weights
    del weights["blocks.1.adaLN_modulation.1.bias"]
    weights["mystery.weight"] = torch.ones(1)
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=r"missing blocks.1.adaLN_modulation.1.bias; unexpected mystery.weight"):
        load(importer, tmp_path / "file.safetensors")


def test_tokens_that_do_not_fill_a_square_are_refused(tmp_path):
    weights = Case("lightningdit").weights
    weights["pos_embed"] = weights["pos_embed"][:, :15].contiguous()
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="square"):
        load("lightningdit", tmp_path / "file.safetensors")


STYLES = {
    "sit": {"use": "flow_transformer"},
    "lightningdit": {
        "use": "flow_transformer",
        "norm": "rms",
        "mlp": "swiglu",
        "rope": True,
        "direction": "data",
    },
    "noise": {"use": "flow_transformer", "norm": "rms", "mlp": "swiglu", "rope": True},
    "qk_norm": {"use": "flow_transformer", "qk_norm": True},
}


@pytest.mark.parametrize(
    ("importer", "style"),
    [("sit", "lightningdit"), ("sit", "qk_norm"), ("lightningdit", "sit"), ("lightningdit", "noise")],
)
def test_a_generator_of_another_style_is_not_exported(importer, style):
    registry = load_registry()
    space = LatentSpace(kind="continuous", num_tokens=4, width=4, grid=(2, 2))
    generator = registry.build("generator", {"width": 16, "depth": 1, "num_heads": 2, **STYLES[style]}, space, 3)
    with pytest.raises(RobustokError, match="the published"):
        registry.build("importer", {"use": importer}).export(generator)


def test_training_continues_from_imported_weights(tmp_path):
    case, _, generator, _ = imported("lightningdit", tmp_path)
    losses = generator.train().loss(
        Latents(vectors=case.inputs["x1"]), case.labels, draws=Draws.for_rows(1, 3), progress=0
    )
    assert set(losses) == {"velocity", "cosine"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())
