"""Components on disk are the components that were saved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from project import IMAGE_SIZE, NUM_CLASSES, TABLES, assert_same_weights
from robustok_core import Registry, RobustokError, RunError
from robustok_core.runs.components import (
    ComponentRecord,
    load_component,
    read_component,
    save_component,
    sketch_component,
)
from robustok_core.runs.files import read_json, read_tensors, write_json, write_tensors
from robustok_core.values.draws import seeded


@pytest.fixture
def tokenizer(registry) -> torch.nn.Module:
    with seeded("a tokenizer"):
        return registry.build("tokenizer", TABLES["tokenizer"]).eval()


@pytest.fixture
def saved(tokenizer, tmp_path) -> Path:
    """The tokenizer's folder."""
    save_component(tmp_path, "tokenizer", TABLES["tokenizer"], tokenizer, opponents=["gan"])
    return tmp_path


def test_a_loaded_tokenizer_has_the_weights_and_computes_what_the_saved_one_did(tokenizer, saved, registry):
    loaded = load_component(registry, saved)
    assert_same_weights(loaded.state_dict(), tokenizer.state_dict())
    assert not loaded.training
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded.decode(loaded.encode(images)), tokenizer.decode(tokenizer.encode(images)))


def test_the_file_holds_the_recipe_table_and_what_else_is_known(saved):
    expected = ComponentRecord(kind="tokenizer", table=TABLES["tokenizer"], opponents=["gan"])
    assert read_component(saved) == expected
    assert read_json(saved / "component.json")["table"] == TABLES["tokenizer"]


def test_a_generator_is_built_again_with_its_space_and_classes(tokenizer, registry, tmp_path):
    generator = registry.build("generator", TABLES["generator"], tokenizer.space, NUM_CLASSES)
    save_component(tmp_path, "generator", TABLES["generator"], generator)
    loaded = load_component(registry, tmp_path)
    assert (loaded.space, loaded.num_classes) == (tokenizer.space, NUM_CLASSES)
    assert_same_weights(loaded.state_dict(), generator.state_dict())


def test_a_sketch_has_shapes_and_no_memory(tokenizer, saved, registry):
    sketch = sketch_component(registry, saved)
    assert sketch.space == tokenizer.space
    assert {parameter.device.type for parameter in sketch.parameters()} == {"meta"}
    assert [p.shape for p in sketch.parameters()] == [p.shape for p in tokenizer.parameters()]


def test_a_component_can_be_moved_to_another_folder(saved, registry, tmp_path_factory):
    moved = shutil.copytree(saved, tmp_path_factory.mktemp("moved") / "here")
    assert_same_weights(load_component(registry, moved).state_dict(), load_component(registry, saved).state_dict())


def test_a_folder_without_a_component_is_refused(tmp_path):
    with pytest.raises(RobustokError, match="there is no component here") as caught:
        read_component(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_weights_of_another_model_are_refused_by_name(saved, registry):
    file = saved / "model.safetensors"
    weights = read_tensors(file)
    shrunk, lost = list(weights)[:2]
    changed = {name: value for name, value in weights.items() if name != lost} | {"new": torch.zeros(2)}
    write_tensors(file, changed | {shrunk: torch.zeros(7)})
    with pytest.raises(RunError, match="the weights do not fit the model") as caught:
        load_component(registry, saved)
    assert f"missing {lost}" in caught.value.what
    assert "unexpected new" in caught.value.what
    assert f"wrong shape {shrunk}: (7,) instead of " in caught.value.what


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-8])])
def test_missing_or_cut_weights_are_one_message(saved, registry, damage):
    damage(saved / "model.safetensors")
    with pytest.raises(RunError, match=r"model\.safetensors: cannot be read"):
        load_component(registry, saved)


def test_a_component_of_a_plugin_that_is_not_installed_is_refused_by_name(saved):
    with pytest.raises(RobustokError, match="no tokenizer is called 'conv_vq'"):
        load_component(Registry(), saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": None}, "kind: expected str, found NoneType None"),
        ({"table": 3}, "table: expected an object"),
        ({"table": {}}, "the key table.use, the name of the component, is missing or no text"),
        ({"table": {"use": "conv_vq", "image_size": "32"}}, "this component cannot be built: .*image_size"),
        ({"opponents": "gan"}, "opponents: expected a list, found str 'gan'"),
        ({"post_trained": True}, "post_trained: expected float, found bool True"),
    ],
)
def test_a_damaged_record_is_one_message_that_names_the_key(saved, registry, change, words):
    write_json(saved / "component.json", read_json(saved / "component.json") | change)
    with pytest.raises(RunError, match=rf"component\.json: {words}"):
        load_component(registry, saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": None}, "a generator needs the keys space and num_classes"),
        ({"num_classes": 0}, "'num_classes' must be >= 1"),
        ({"class_names": ["a"]}, f"class_names has 1 names, but num_classes is {NUM_CLASSES}"),
        ({"space": {"kind": "discrete"}}, "space.num_tokens: the key is missing"),
        ({"space": {"kind": "dense", "num_tokens": 16, "width": 4}}, "space"),
        (
            {"space": {"kind": "discrete", "num_tokens": 16, "width": 4, "codebook_size": 8, "grid": [16]}},
            "space.grid: expected 2 items, found 1",
        ),
    ],
)
def test_a_damaged_record_of_a_generator_is_one_message(tokenizer, registry, tmp_path, change, words):
    generator = registry.build("generator", TABLES["generator"], tokenizer.space, NUM_CLASSES)
    save_component(tmp_path, "generator", TABLES["generator"], generator)
    write_json(tmp_path / "component.json", read_json(tmp_path / "component.json") | change)
    with pytest.raises(RunError, match=rf"component\.json: .*{words}"):
        load_component(registry, tmp_path)


def test_an_infinite_codeword_is_refused(saved, registry):
    file = saved / "model.safetensors"
    weights = read_tensors(file)
    weights["quantizer.embedding"][3] = torch.inf
    write_tensors(file, weights)
    with pytest.raises(RunError, match=r"weights are NaN or infinite: quantizer.embedding \(4 of 128 values\)"):
        load_component(registry, saved)
