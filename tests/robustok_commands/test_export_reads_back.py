"""`robustok export` reads back what it wrote: the same model, with the options that it prints, or no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from published import noted_words
from robustok_core.errors import RobustokError
from robustok_core.runs.components import load_component, read_component, save_component
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace

CODES = LatentSpace(kind="discrete", num_tokens=16, width=8, codebook_size=33, grid=(4, 4))
VECTORS = LatentSpace(kind="continuous", num_tokens=16, width=5, grid=(4, 4))
SIZE = {"width": 32, "depth": 2, "num_heads": 4}
PATCHES = {"image_size": 16, "patch_size": 4}
GPT = {"use": "llamagen_gpt", **SIZE, "num_heads": 1, "width": 64}
FLOW = {"use": "flow_transformer", **SIZE, "direction": "data"}
VIT = {"use": "vit_vq", **PATCHES, **SIZE, "num_latent_tokens": 16}
VQ = {"use": "vq", "codebook_size": 16, "width": 4}
STACKS = {"encoder": SIZE, "decoder": SIZE}
CONV = {"use": "conv_vq", "image_size": 64, "channels": 32, "channel_multipliers": [1] * 6, "z_channels": 4}
#: Of such options, importers know the published values.
GPT_SPACE = ["--set", "num_tokens=16", "--set", "code_width=8"]

Made = Callable[..., nn.Module]


@pytest.fixture
def made(registry, tmp_path) -> Made:
    """Writes a component, with random weights everywhere, to the folder "ours"."""

    def make(table: Mapping[str, Any], space: LatentSpace | None = None, *, random: bool = True) -> nn.Module:
        kind, args = ("tokenizer", ()) if space is None else ("generator", (space, 3))
        torch.manual_seed(0)
        component = registry.build(kind, table, *args).eval()
        for parameter in component.parameters() if random else ():
            nn.init.normal_(parameter, std=0.3)
        save_component(tmp_path / "ours", kind, registry.spec(kind, table).table(), component)
        return component

    return make


@torch.no_grad()
def outputs(component: Any) -> list[Tensor]:
    """What a user gets: reconstructions of a tokenizer, logits or guided samples of a generator."""
    if hasattr(component, "encode"):
        images = torch.rand(2, 3, component.image_size, component.image_size, generator=torch.manual_seed(1)) * 2 - 1
        latents = component.encode(images)
        return [latents.vectors, component.decode(latents)]
    labels = torch.tensor([0, 2])
    if component.space.kind == "discrete":
        return [component(torch.arange(32).reshape(2, 16), labels)]
    few = type(component).Sampling(steps=3)
    sampled = component.sample(labels, Draws.for_rows(1, 2), guidance=Guidance(scale=3.0), sampling=few)
    return [sampled.vectors]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(ours, theirs) for ours, theirs in zip(outputs(one), outputs(other), strict=True))


@pytest.mark.parametrize(
    ("importer", "table", "space", "options"),
    [
        ("robustok", {**VIT, "quantizer": VQ}, None, {"num_heads=4"}),
        ("robustok", {**VIT, "quantizer": VQ | {"l2_normalise": False}}, None, {"num_heads=4", "l2_normalise=false"}),
        (
            "titok",
            {
                "use": "titok",
                **PATCHES,
                "output": "pixels",
                "num_latent_tokens": 6,
                **STACKS,
                "quantizer": VQ | {"l2_normalise": False},
            },
            None,
            {"encoder_num_heads=4", "decoder_num_heads=4", "l2_normalise=false"},
        ),
        (
            "llamagen_vq",
            {**CONV, "quantizer": VQ | {"l2_normalise": False}},
            None,
            {"l2_normalise=false", "image_size=64"},
        ),
        (
            "ldetok",
            {"use": "vit_kl", "style": "detok", **PATCHES, "latent_width": 4, **STACKS},
            None,
            {"encoder_num_heads=4", "decoder_num_heads=4"},
        ),
        (
            "maetok",
            {
                "use": "mae_tok",
                **PATCHES,
                **SIZE,
                "num_latent_tokens": 5,
                "rotary": "axial",
                "rotary_base": 50.0,
                "decoder_absolute_positions": True,
            },
            None,
            {"num_heads=4", "axial_rotary=true", "rotary_base=50.0", "decoder_absolute_positions=true"},
        ),
        ("llamagen_gpt", {**GPT, "num_heads": 2}, CODES, {"num_heads=2", "num_tokens=16"}),
        ("lightningdit", FLOW, VECTORS, {"num_heads=4", "guided_channels=5"}),
        ("lightningdit", FLOW | {"rope": True, "path": "cosine"}, VECTORS, {'path="cosine"', "guided_channels=5"}),
        ("dit", {"use": "dit", **SIZE, "guided_channels": 2}, VECTORS, {"num_heads=4", "guided_channels=2"}),
    ],
)
def test_the_words_that_it_prints_restore_the_same_model(
    importer, table, space, options, command, made, registry, tmp_path
):
    ours = made(table, space)
    code, output, printed = command("export", importer, "ours", "again.safetensors")
    assert code == 0, printed
    assert output == "written to again.safetensors\n"
    words = noted_words(printed)
    assert set(words[5::2]) == {"--set"}
    assert set(words[6::2]) == options
    for word in options - {'path="cosine"'}:
        assert word.partition("=")[0] in printed.partition("import it with\n")[0]
    assert command(*words[1:])[0] == 0
    assert same(load_component(registry, tmp_path / "FOLDER"), ours)


def test_weights_that_are_still_zero_do_not_hide_an_option(command, made):
    made(FLOW, VECTORS, random=False)  # its output does not depend on its heads before it is trained
    assert "num_heads=4" in noted_words(command("export", "lightningdit", "ours", "again.pt")[2])


@pytest.mark.parametrize("given", [[], GPT_SPACE])
def test_what_no_option_of_the_importer_says_is_refused_and_nothing_is_written(given, refused, made, tmp_path):
    made({**GPT, "class_rope": "identity"}, CODES)
    output = refused("export", "llamagen_gpt", "ours", "again.safetensors", *given)
    assert 'class_rope: "identity" → "zero"' in output
    assert "--set NAME=VALUE" in output
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.parametrize(
    ("importer", "table", "space"),
    [
        (
            "llamagen_gpt",
            {**GPT, "positions": "learned", "token_dropout": 0.3},
            LatentSpace(kind="discrete", num_tokens=16, width=8, codebook_size=33),
        ),
        (
            "rar",
            {"use": "rar", "width": 32, "depth": 1, "num_heads": 2},
            LatentSpace(kind="discrete", num_tokens=16, width=64, codebook_size=33),
        ),
        ("robustok", {**VIT, "width": 64, "num_heads": 1, "quantizer": VQ | {"commitment": 0.5}}, None),
        (
            "sit",
            FLOW | {"rope": False, "guided_channels": 3, "times": "logit_normal", "width": 384, "num_heads": 6},
            VECTORS,
        ),
    ],
)
def test_an_exact_export_is_silent_whatever_only_its_training_used(importer, table, space, command, made):
    made(table, space)
    assert command("export", importer, "ours", "again.safetensors") == (0, "written to again.safetensors\n", "")


def test_the_statistics_are_noted_once_and_are_among_the_words_of_a_second_note(command, made, registry, tmp_path):
    ours = made(FLOW, VECTORS)
    ours.observe(torch.zeros(5), torch.full((5,), 2.0))
    save_component(tmp_path / "ours", "generator", read_component(tmp_path / "ours").table, ours)
    printed = command("export", "lightningdit", "ours", "again.safetensors")[2]
    assert printed.count("the statistics of the latents") == 1
    assert printed.count("import it with") == 2
    assert command(*noted_words(printed)[1:])[0] == 0
    assert same(load_component(registry, tmp_path / "FOLDER"), ours)
    given = ["--set", "num_heads=4", "--set", "guided_channels=5"]
    assert command("export", "lightningdit", "ours", "second.safetensors", *given)[2].count("note: ") == 1


def test_a_file_that_needs_options_is_written_and_read_with_those_that_are_given(command, made):
    made(GPT, CODES)
    assert noted_words(command("export", "llamagen_gpt", "ours", "one.pt")[2])[5:] == GPT_SPACE[:2]
    assert command("export", "llamagen_gpt", "ours", "two.pt", *GPT_SPACE)[2] == ""


def test_what_no_option_lets_the_importer_read_is_written_and_said_not_to_be_compared(command, made, monkeypatch):
    def cannot_read(*_: object) -> None:
        raise RobustokError("it needs the file that lists its parts")

    made({**VIT, "quantizer": VQ})
    monkeypatch.setattr("robustok_commands.read_back.read_published", cannot_read)
    code, output, printed = command("export", "robustok", "ours", "again.pt")
    assert (code, output) == (0, "written to again.pt\n")
    assert (
        "note: again.pt was not compared with ours, for the importer robustok cannot read it as it is: it n" in printed
    )
    assert "export with --set NAME=VALUE to compare it" in printed


def test_a_wrong_option_that_is_given_is_refused(refused, made):
    made({**VIT, "quantizer": VQ})
    output = refused("export", "robustok", "ours", "again.pt", "--set", "num_heads=2")
    assert "num_heads: 4 → 2" in output


def test_config_json_beside_the_weights_counts_and_files_of_these_names_stay(command, refused, made, tmp_path):
    table = {"use": "kl_vae", "image_size": 256, "channels": 8, "channel_multipliers": [1] * 6, "norm_groups": 4}
    made({**table, "width": 4, "z_channels": 4, "double_z": True})
    assert command("export", "diffusers", "ours", "there/weights.safetensors")[2] == ""  # it says norm_groups
    assert sorted(path.name for path in Path("there").iterdir()) == ["config.json", "weights.safetensors"]
    Path("taken").mkdir()
    Path("taken/config.json").write_text("mine")
    assert "config.json: this already exists" in refused("export", "diffusers", "ours", "taken/weights.safetensors")
    Path("taken/weights.safetensors").write_text("mine, too")
    assert "weights.safetensors: this already" in refused("export", "diffusers", "ours", "taken/weights.safetensors")
    assert {path.name: path.read_text() for path in Path("taken").iterdir()} == {
        "config.json": "mine",
        "weights.safetensors": "mine, too",
    }
