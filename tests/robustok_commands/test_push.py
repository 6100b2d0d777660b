"""`robustok push` and `from_pretrained`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file

from project import Project, contents
from readers import published_weights
from robustok import RobustokError, RunError, from_pretrained, load_generator, load_tokenizer
from robustok_commands.push import push
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.loading import read_published, save_imported
from robustok_core.values.numbers import number_text

EVALUATION = {"use": "evaluate_tokenizer", "limit": 20, "metrics": {"psnr": {"use": "psnr"}, "rfd": {"use": "frechet"}}}


def pushed(*words: object) -> None:
    """Runs the command."""
    push.main([str(word) for word in words], standalone_mode=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Project:
    """A tokenizer that was taken as it is and measured; not to be changed."""
    return Project(tmp_path_factory.mktemp("measured"), ["take_tokenizer", EVALUATION]).run()


@pytest.fixture
def folder(measured, tmp_path) -> Path:
    """What would be uploaded."""
    pushed(measured.folder, "me/net", "--to", tmp_path / "net", "--licence", "mit")
    return tmp_path / "net"


def test_the_folder_gives_the_same_codes_and_images(measured, folder):
    images = measured.dataset().validation.load(range(4)).images
    for load in (from_pretrained, load_tokenizer):
        ours, theirs = load_tokenizer(measured.folder), load(folder)
        latents = ours.encode_images(images)
        assert torch.equal(theirs.encode_images(images).codes, latents.codes)
        assert theirs.decode_to_images(latents) == ours.decode_to_images(latents)


def test_it_holds_safetensors_configuration_recipe_and_card(measured, folder):
    names = {file.name for file in folder.iterdir()}
    assert names == {"README.md", "config.json", "recipe.toml", *contents(find_artifact(measured.folder, "tokenizer"))}
    config = json.loads((folder / "config.json").read_text())
    assert (config["library"], config["table"]["use"]) == ("robustok", measured.table["tokenizer"]["use"])
    assert load_file(folder / "model.safetensors").keys() == measured.weights().keys()
    assert (folder / "recipe.toml").read_text() == (measured.folder / "recipe.toml").read_text()


def test_the_card_says_what_was_trained_on_what_and_measured_how(measured, folder):
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "robustok")
    for name, result in measured.results.items():
        count = "" if result.num_images is None else f"{result.num_images:,}"
        assert f"| {name} | {number_text(result.value, 6)} | {count} |" in card.text
    (distance,) = (line for line in card.text.splitlines() if "rfd_" in line and line.startswith("|"))
    assert "| 20 |" in distance
    assert "limit: 20" in distance
    assert "efficientnet_lite0" in distance.rpartition("features: ")[2]
    assert f"validation images: {measured.dataset().validation.fingerprint}" in card.text
    assert "data: `fashion_mnist`" in card.text
    assert 'robustok.from_pretrained("me/net")' in card.text
    assert (measured.folder / "recipe.toml").read_text().strip() in card.text


def test_an_artifact_of_a_run_has_the_results_of_that_run(measured, tmp_path):
    pushed(find_artifact(measured.folder, "tokenizer"), "me/net", "--to", tmp_path / "net")
    assert "evaluate_tokenizer/psnr" in (tmp_path / "net" / "README.md").read_text()
    assert "not stated" in (tmp_path / "net" / "README.md").read_text()


def test_an_imported_tokenizer_is_pushed_with_its_origin_and_no_results(registry, tmp_path):
    from safetensors.torch import save_file

    save_file(published_weights("robustok_tokenizer_a"), tmp_path / "theirs.safetensors")
    spec = registry.spec("importer", {"use": "robustok", "num_heads": 2})
    save_imported(read_published(spec, tmp_path / "theirs.safetensors", registry), tmp_path / "in")
    pushed(tmp_path / "in", "me/net", "--to", tmp_path / "net")
    card = (tmp_path / "net" / "README.md").read_text()
    assert "weights imported from `theirs.safetensors`" in card
    assert "Nothing was measured." in card
    assert from_pretrained(tmp_path / "net").tokenizer.space == load_tokenizer(tmp_path / "in").tokenizer.space


def test_what_is_pushed_can_be_loaded_by_a_recipe(measured, folder, tmp_path):
    project = Project(tmp_path / "runs", [EVALUATION], load={"tokenizer": folder}).run()
    name = "evaluate_tokenizer/psnr"
    assert project.results[name].value == measured.results[name].value


# --- generators ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator_folder(trained, tmp_path_factory) -> Path:
    """What would be uploaded of a trained generator; not to be changed."""
    folder = tmp_path_factory.mktemp("pushed") / "net"
    pushed(trained.folder, "me/net", "--generator", "--to", folder)
    return folder


def test_a_generator_gives_the_same_samples_wherever_it_is(trained, generator_folder, tmp_path):
    moved = shutil.copytree(generator_folder, tmp_path / "moved")
    ours = load_generator(trained.folder).sample_images("bag", n=3, seed=5)
    assert from_pretrained(moved).sample_images("bag", n=3, seed=5) == ours
    assert load_generator(moved).sample_images("bag", n=3, seed=5) == ours


def test_a_generator_has_its_tokenizer_in_a_folder_of_its_own(trained, generator_folder):
    of_generator, of_tokenizer = (set(contents(trained.artifact(kind))) for kind in ("generator", "tokenizer"))
    assert set(contents(generator_folder)) == {
        "README.md",
        "config.json",
        "recipe.toml",
        *of_generator,
        *(f"tokenizer/{name}" for name in of_tokenizer),
    }
    config = json.loads((generator_folder / "config.json").read_text())
    assert (config["kind"], config["table"]["use"]) == ("generator", trained.table["generator"]["use"])
    assert load_tokenizer(generator_folder / "tokenizer").tokenizer.space == trained.component("tokenizer").space


def test_the_card_of_a_generator_says_how_to_sample(trained, generator_folder):
    card = ModelCard.load(generator_folder / "README.md")
    assert card.data.tags == ["image-generator", trained.table["generator"]["use"]]
    assert "for 10 classes and images of 32 x 32 pixels" in card.text
    code = card.text.partition("```python\n")[2].partition("```")[0].replace("me/net", str(generator_folder))
    code = code.replace("sample.png", str(generator_folder.parent / "sample.png"))
    exec(code, found := {})
    assert (generator_folder.parent / "sample.png").is_file()
    assert found["tokenizer"] is found["generator"].tokenizer


def test_the_folder_of_a_generator_is_pushed_as_one(trained, generator_folder, tmp_path):
    pushed(trained.artifact("generator"), "me/net", "--to", tmp_path / "net")
    assert contents(tmp_path / "net") == contents(generator_folder)
    pushed(generator_folder, "me/net", "--to", tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer" / "model.safetensors").is_file()


def test_both_of_a_pushed_generator_can_be_loaded_by_a_recipe(trained, generator_folder, tmp_path):
    load = {"generator": generator_folder, "tokenizer": generator_folder / "tokenizer"}
    project = Project(tmp_path, ["sample"], load=load).run()
    first, second = (np.load(run.artifact("samples") / "codes.npy") for run in (trained, project))
    assert np.array_equal(first, second)


def test_a_damaged_tokenizer_of_a_generator_is_named(generator_folder, tmp_path):
    moved = shutil.copytree(generator_folder, tmp_path / "moved")
    (moved / "tokenizer" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RobustokError, match="damaged: ") as caught:
        from_pretrained(moved)
    assert caught.value.where == str(moved / "tokenizer" / "model.safetensors")


def test_a_generator_without_a_tokenizer_is_one_message(trained, tmp_path):
    alone = shutil.copytree(trained.artifact("generator"), tmp_path / "alone")
    with pytest.raises(RobustokError, match="holds only a generator, but a tokenizer is needed too"):
        pushed(alone, "me/net", "--to", tmp_path / "net")


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Path:
    """A folder that takes the place of the hub."""

    def upload(self, *, repo_id, folder_path, commit_message, delete_patterns):
        repository = tmp_path / "hub" / repo_id
        for name in filter_repo_objects(list(contents(repository)), allow_patterns=delete_patterns):
            (repository / name).unlink()
        shutil.copytree(folder_path, repository, dirs_exist_ok=True)
        return f"https://hub/{repo_id}"

    def download(name, *, revision, allow_patterns):
        source, target = tmp_path / "hub" / name, tmp_path / "cache" / name
        files = [file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, target / file)
        return str(target)

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, repo_id, private, exist_ok: None)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return tmp_path / "hub"


def test_what_is_uploaded_is_what_the_folder_would_hold_and_is_loaded_by_its_name(measured, folder, hub, capsys):
    pushed(measured.folder, "me/net", "--licence", "mit")
    assert capsys.readouterr().out == "uploaded to https://hub/me/net\n"
    assert contents(hub / "me/net") == contents(folder)
    assert from_pretrained("me/net").tokenizer.space == from_pretrained(folder).tokenizer.space


def test_nothing_of_an_earlier_upload_remains_but_the_users_own_files(trained, hub, tmp_path):
    pushed(trained.folder, "me/net", "--generator")
    (hub / "me/net" / "LICENSE").write_text("MIT")
    alone = shutil.copytree(trained.artifact("tokenizer"), tmp_path / "alone")  # of no run: it has no recipe
    pushed(alone, "me/net")
    written = {"README.md", "config.json", "component.json", "model.safetensors", "manifest.json"}
    assert set(contents(hub / "me/net")) == {*written, "LICENSE"}


def test_a_public_repository_is_not_given_what_should_be_private(measured, hub, monkeypatch):
    for private in (False, True):
        info = SimpleNamespace(private=private)
        monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda self, repo_id, info=info: info)
        if private:
            pushed(measured.folder, "me/net", "--private")
            assert (hub / "me/net").is_dir()
        else:
            with pytest.raises(RobustokError, match="me/net: this repository exists already, and is public"):
                pushed(measured.folder, "me/net", "--private")
            assert not hub.exists()


def test_a_folder_is_not_private(measured, tmp_path):
    with pytest.raises(click.UsageError, match="leave out --private"):
        pushed(measured.folder, "me/net", "--private", "--to", tmp_path / "net")


def test_a_generator_is_loaded_by_its_name(trained, hub):
    pushed(trained.folder, "me/sampler", "--generator")
    ours = load_generator(trained.folder).sample_images("bag", n=2)
    assert from_pretrained("me/sampler").sample_images("bag", n=2) == ours


def test_without_a_network_there_is_one_message_for_each_direction(measured, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(RunError, match="cannot upload: ") as caught:
        pushed(measured.folder, "me/net")
    assert "--to FOLDER" in caught.value.hint
    with pytest.raises(RobustokError, match="me/net: there is no such folder, and it cannot be had from the hub: "):
        from_pretrained("me/net")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "me/net"), "there is no such run or artifact"),
        (("RUN", "net"), "this is not the name of a repository"),
        (("RUN", "me/../net"), "this is not the name of a repository"),
        (("RUN", "me/net", "--to", "."), "this already exists"),
    ],
)
def test_mistakes_are_one_message(measured, words, message):
    with pytest.raises(RobustokError, match=message):
        pushed(*(measured.folder if word == "RUN" else word for word in words))


def test_a_folder_of_something_else_is_refused_and_a_damaged_one_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RobustokError, match="this holds no tokenizer or generator of robustok"):
        from_pretrained(tmp_path / "empty")
    (folder / "README.md").write_text("a user's own words")
    from_pretrained(folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(RobustokError, match="damaged: "):
        from_pretrained(folder)
