"""Presets: what of them is laid over a recipe, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustok_core import Recipe, RobustokError
from robustok_core.recipe.presets import lay_preset
from robustok_core.recipe.source import Source, read_source

BASE = """
[data]
use = "fashion_mnist"
[tokenizer]
use = "conv_vq"
[[stage]]
use = "evaluate_tokenizer"
[[stage]]
use = "train_tokenizer"
[stage.losses]
pixels = { use = "reconstruction" }
"""
NO_TABLE = "left out, because the recipe has no such table"


@pytest.fixture
def read(tmp_path: Path):
    def read(text: str, name: str = "preset.toml") -> Source:
        (tmp_path / name).write_text(text)
        return read_source(tmp_path / name)

    return read


def laid(recipe: Path, preset: Path) -> Recipe:
    return Recipe.load(recipe, presets=[str(preset)])


@pytest.fixture
def files(read, tmp_path) -> tuple[Path, Path]:
    """A recipe, and where its preset will be."""
    read(BASE, "recipe.toml")
    return tmp_path / "recipe.toml", tmp_path / "preset.toml"


def test_a_preset_changes_what_a_recipe_has_and_adds_nothing(read):
    preset = read(
        "[tokenizer]\nattention = false\n[generator]\ndepth = 2\n"
        '[[stage]]\nuse = "sample"\n[[stage]]\nuse = "train_tokenizer"\n'
        "[stage.losses]\npixels = { weight = 2 }\nlatents = { weight = 3 }\n[stage.optimizer]\n"
    )
    table = lay_preset(read(BASE, "recipe.toml"), preset)[0].table
    assert table["tokenizer"] == {"use": "conv_vq", "attention": False}
    assert "generator" not in table
    assert table["stage"] == [
        {"use": "evaluate_tokenizer"},
        {"use": "train_tokenizer", "losses": {"pixels": {"use": "reconstruction", "weight": 2}}},
    ]


def test_a_key_of_a_preset_keeps_its_line_though_a_stage_before_it_is_left_out(read):
    preset = read('[[stage]]\nuse = "sample"\nepochs = 1\n[[stage]]\nuse = "train_tokenizer"\nepochs = 2\n')
    source, _ = lay_preset(read(BASE, "recipe.toml"), preset)
    assert source.location(("stage", 1, "epochs")).endswith("preset.toml:6")


def test_the_run_of_a_preset_counts_where_the_recipe_has_no_such_table(read):
    source, left_out = lay_preset(read(BASE, "recipe.toml"), read("[run]\nseed = 5\n"))
    assert (source.table["run"], left_out) == ({"seed": 5}, [])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[generator]\ndepth = 2\n", 3, f"generator: {NO_TABLE}"),
        (
            '[[stage]]\nuse = "train_tokeniser"\nepochs = 2\n',
            3,
            "stage.train_tokeniser: left out, because the recipe has no such stage (did you mean 'train_tokenizer'?)",
        ),
        (
            '[[stage]]\nuse = "train_tokenizer"\n[stage.losses.pixel]\nweight = 2\n',
            5,
            f"stage.train_tokenizer.losses.pixel: {NO_TABLE} (did you mean 'pixels'?)",
        ),
    ],
)
def test_what_is_left_out_is_said_with_its_line(files, caplog, text, line, said):
    recipe, preset = files
    preset.write_text(f"[tokenizer]\nattention = false\n{text}")
    laid(recipe, preset)
    assert caplog.messages == [f"{preset}:{line}: {said}"]


def test_a_misspelt_table_is_refused_with_its_line(files, registry):
    recipe, preset = files
    preset.write_text("[tokenizer]\nattention = false\n[tokeniser]\nwidth = 2\n")
    with pytest.raises(RobustokError, match=rf"{preset}:3: tokeniser: unknown table 'tokeniser' \(did you mean"):
        laid(recipe, preset).resolve(registry)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("# nothing\n", "it sets no key"),
        ('[[stage]]\nuse = "train_tokenizer"\n', "it sets no key"),
        (
            '[generator]\ndepth = 2\n[[stage]]\nuse = "train_tokenizer"\n[stage.losses.latents]\nweight = 2\n',
            "the recipe has no [generator], [stage.train_tokenizer.losses.latents]",
        ),
    ],
)
def test_a_preset_of_which_nothing_is_left_is_refused(files, text, hint):
    recipe, preset = files
    preset.write_text(text)
    with pytest.raises(RobustokError, match="nothing of this preset fits the recipe") as caught:
        laid(recipe, preset)
    assert (caught.value.where, caught.value.hint) == (str(preset), hint)
