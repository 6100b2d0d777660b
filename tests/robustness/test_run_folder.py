"""A run's folder through changed recipes, changed code, moves and kills: what is said, and that nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import robustok_core.runs.code
from processes import in_a_process_that_dies, kill, killed_in_a_shard
from project import Project, contents, registry_with
from robustok_core import Registry, RobustokError
from robustok_core.runs.code import code_of_run
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.folder import RunFolder, find_artifact
from robustok_core.runs.results import read_results
from robustok_toolkit.trained import artifact_of
from robustok_toolkit.trained_generator import load_generator

SHORT = {"epochs": 0.2}


def test_a_changed_recipe_says_what_changed_and_where_the_earlier_one_lies(tmp_path, command):
    project = Project(tmp_path, ["train_tokenizer", "tokenize"], train_tokenizer=SHORT).run()
    assert "another recipe" not in project.printed
    first = {name: project.artifact(name) for name in ("tokenizer", "latents")}
    results = read_results(project.folder)
    project.table["perturbation"]["beta"] = 0.5
    project.table["stage"].pop()
    project.run()
    assert "another recipe: perturbation.beta: 0.25 -> 0.5; stage.tokenize: removed\n" in project.printed
    kept = project.folder / "history" / "results-1.json"
    assert str(kept) in project.printed
    assert read_results(kept) == results
    assert "another recipe" not in project.run().printed
    code, output, _ = command("history", project.folder)
    assert code == 0
    for words in ("perturbation.beta: 0.25 -> 0.5", "recipe-1.toml", kept, *first.values()):
        assert str(words) in output
    assert str(project.artifact("tokenizer")) not in output


def test_the_history_of_a_folder_that_changes_back_and_forth_keeps_all_results(tmp_path, command):
    project = Project(tmp_path, train_tokenizer=SHORT)
    for beta in (0.25, 0.5, 0.25):
        project.table["perturbation"]["beta"] = beta
        project.run()
    _, output, _ = command("history", project.folder)
    assert [line for line in output.splitlines() if "beta" in line] == ["    perturbation.beta: 0.5 -> 0.25"]
    assert "1  replaced" in output
    assert "nothing: the folder holds it again" in output
    assert {file.name for file in (project.folder / "history").iterdir()} == {
        f"{name}-{number}.{ending}" for name, ending in (("recipe", "toml"), ("results", "json")) for number in (1, 2)
    }


def test_a_recipe_file_that_was_edited_in_the_folder_is_noticed(tmp_path):
    project = Project(tmp_path, train_tokenizer=SHORT).run()
    file = project.folder / "recipe.toml"
    file.write_text(file.read_text().replace("beta = 0.25", "beta = 0.5"))
    project.table["perturbation"]["beta"] = 0.5
    assert f"{file} was edited or damaged since it was written" in project.run().printed
    assert (project.folder / "history" / "results-1.json").exists()


def test_a_folder_that_has_held_one_recipe_has_no_history(trained, command, refused, tmp_path):
    assert command("history", trained.folder)[1] == "this folder has held one recipe only\n"
    assert "this is not a run folder" in refused("history", tmp_path)


PLUGIN = '''
import torch
from attrs import frozen
from robustok_core import Perturbation

@frozen(kw_only=True)
class Config:
    """None."""

class Mine(Perturbation):
    """Adds something."""
    Config = Config

    def __init__(self, config):
        self.config = config

    def perturb(self, latents, quantizer, *, draws, progress):
        return latents, torch.zeros(latents.codes.shape, dtype=torch.bool)
'''


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[Path]:
    """The folder of a package with a perturbation, which can be imported."""
    folder = tmp_path / "packages" / "robustok_mine"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "mine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    for name in ("robustok_mine", "robustok_mine.mine"):
        sys.modules.pop(name, None)


def registry_of_mine() -> Registry:
    module: ModuleType = __import__("robustok_mine.mine").mine
    return registry_with(perturbation={"mine": module.Mine})


@pytest.fixture
def with_plugin(package, tmp_path) -> Project:
    """A finished run whose perturbation is the package's."""
    stages = ["train_tokenizer", "tokenize"]
    project = Project(tmp_path / "runs", stages, train_tokenizer=SHORT, perturbation={"use": "mine"})
    return project.run(registry=registry_of_mine())


def test_edited_plugin_code_makes_its_stages_run_again_beside_the_old_ones(with_plugin, package):
    project, registry = with_plugin, registry_of_mine()
    assert project.run(registry=registry).printed.count("done before, unchanged") == 2
    first, code = project.artifact("latents"), code_of_run(project.folder)
    (package / "mine.py").write_text(PLUGIN + "\n# edited\n")
    project.run(registry=registry)
    assert "train_tokenizer runs again: the code of robustok_mine (" in project.printed
    assert "tokenize runs again: what it reads is made by other code" in project.printed
    assert "unchanged" not in project.printed
    assert first.is_dir()
    assert project.artifact("latents") != first
    assert code_of_run(project.folder)["robustok_mine"] != code["robustok_mine"]
    (package / "mine.py").write_text(PLUGIN)
    project.run(registry=registry)
    assert project.artifact("latents") == first, "the old code has its old artifacts"


def test_old_code_can_be_accepted(with_plugin, package):
    first = with_plugin.artifact("latents")
    (package / "more.py").write_text("")
    with_plugin.run(registry=registry_of_mine(), accept_old_code=True)
    assert with_plugin.printed.count("done before, unchanged") == 2
    assert "since it was done; accepted" in with_plugin.printed
    assert with_plugin.artifact("latents") == first


def test_old_code_is_not_accepted_for_what_is_damaged(with_plugin, package):
    """It would be made again with the new code, and taken for the old code's later."""
    project, registry = with_plugin, registry_of_mine()
    old = {name: project.artifact(name) for name in ("tokenizer", "latents")}
    before = contents(old["tokenizer"])
    (package / "more.py").write_text("")
    weights = old["tokenizer"] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    project.run(registry=registry, accept_old_code=True)
    assert f"{weights}: its content has changed" in project.printed
    assert "train_tokenizer runs again: the code of robustok_mine (" in project.printed
    assert "tokenize runs again: what it reads is made by other code\n" in project.printed
    assert "; accepted" not in project.printed
    assert {name: project.artifact(name) for name in old}.items().isdisjoint(old.items())
    assert weights.read_bytes() == content, "it stays where it is, under the old code's name"
    (package / "more.py").unlink()
    project.run(registry=registry)
    assert (
        f"{weights}: its content has changed since it was written; stage train_tokenizer runs again" in project.printed
    )
    assert contents(old["tokenizer"]) == before


def test_old_code_is_not_accepted_where_what_a_stage_reads_is_made_anew(with_plugin, package):
    project, registry = with_plugin, registry_of_mine()
    (package / "more.py").write_text("")
    project.run(registry=registry, until="train_tokenizer")
    project.run(registry=registry, accept_old_code=True)
    assert "tokenize runs again: what it reads is made by other code\n" in project.printed
    assert artifact_of(project.artifact("latents"), "tokenizer")


def test_another_version_of_robustok_makes_stages_run_again(tmp_path, monkeypatch):
    project = Project(tmp_path, train_tokenizer=SHORT).run()
    monkeypatch.setattr(robustok_core.runs.code, "__version__", "0.2.0")
    assert "the code of robustok (0.1.0 -> 0.2.0) changed" in project.run().printed
    assert "done before, unchanged" in project.run().printed


def test_a_finished_stage_whose_code_an_earlier_version_did_not_record_is_taken(with_plugin):
    record = read_json(with_plugin.folder / "run.json")
    del record["checksum"]
    for key, entry in list(record["stages"].items()):
        stage = key.rpartition("-")[0]
        for name in entry["makes"]:
            folder = with_plugin.artifact(name)
            (folder / "manifest.json").unlink()
            folder.rename(folder.with_name(f"{name}-{entry['without_code']}"))
        for made in entry["made_with"]:
            del made["plugins"]
        record["stages"][f"{stage}-{entry.pop('without_code')}"] = record["stages"].pop(key)
    write_json(with_plugin.folder / "run.json", record)
    with_plugin.run(registry=registry_of_mine())
    assert "train_tokenizer: which plugin code made it is not recorded; it is taken as it is" in with_plugin.printed
    assert with_plugin.printed.count("done before, unchanged") == 2


def test_runs_made_with_other_code_are_compared_with_a_note(with_plugin, package, command, tmp_path):
    (package / "more.py").write_text("")
    other = Project.of(with_plugin.table, tmp_path / "other").run(registry=registry_of_mine())
    code, output, _ = command("compare", with_plugin.folder, other.folder)
    assert code == 0
    assert "made with robustok_mine" in output
    assert "made with" not in command("compare", other.folder, other.folder)[1]


@pytest.fixture
def loading(trained, tmp_path) -> Project:
    """A run, beside a copy of the trained one as `runs/first`, that loaded its tokenizer and latents."""
    shutil.copytree(trained.folder, tmp_path / "runs" / "first")
    load = dict.fromkeys(("tokenizer", "latents"), tmp_path / "runs" / "first")
    project = Project(tmp_path / "runs", ["train_generator"], load=load, train_generator=SHORT)
    return project.run()


@pytest.mark.parametrize("move", ["both", "the run", "the loaded one", "renamed"])
def test_a_run_that_loaded_artifacts_can_be_moved(loading, tmp_path, move):
    tokenizer = find_artifact(loading.folder, "tokenizer")
    before, folder = contents(tokenizer), loading.folder
    if move == "both":
        shutil.move(loading.out, tmp_path / "elsewhere")
        folder = tmp_path / "elsewhere" / "tiny"
    elif move == "the run":
        folder = Path(shutil.move(folder, tmp_path / "moved"))
    else:
        place = tmp_path / "far" if move == "the loaded one" else loading.out / "better_name"
        shutil.move(loading.out / "first", place)
        if move == "the loaded one":
            with pytest.raises(RobustokError, match="the tokenizer that this run loaded is no longer there"):
                find_artifact(folder, "tokenizer")
            shutil.move(place, loading.out / "back")
    found = find_artifact(folder, "tokenizer")
    assert contents(found) == before
    assert artifact_of(found, "generator") if found.is_relative_to(folder) else True
    assert load_generator(folder).sample_images(n=1)


def test_a_moved_run_goes_on_with_what_it_loaded_though_the_recipe_names_the_old_place(loading, tmp_path):
    before = loading.artifact("generator").name
    shutil.move(loading.out, tmp_path / "elsewhere")
    moved = Project.of(loading.table, tmp_path / "elsewhere").run()
    assert "is no longer there; what this run took from it is used" in moved.printed
    assert "train_generator: done before, unchanged" in moved.printed
    moved.stage("train_generator")["epochs"] = 0.4
    assert moved.run().artifact("generator").name != before
    moved.table["load"]["tokenizer"] = str(tmp_path / "nowhere")
    assert "there is no such file or folder" in moved.refusal()


def test_another_tokenizer_in_the_place_of_the_loaded_one_is_refused(loading):
    first = find_artifact(loading.folder, "tokenizer")
    other = Project(loading.out / "else", run={"seed": 9}).run().artifact("tokenizer")
    shutil.rmtree(first)
    shutil.copytree(other, first)
    with pytest.raises(RobustokError, match="the tokenizer that this run loaded has changed since then"):
        find_artifact(loading.folder, "tokenizer")


def test_a_record_with_full_paths_of_an_earlier_version_is_read_after_a_move(loading, tmp_path):
    record = read_json(loading.folder / "run.json")
    del record["checksum"]
    record["inputs"] = {name: entry["path"] for name, entry in record["inputs"].items()}
    write_json(loading.folder / "run.json", record)
    shutil.move(loading.out, tmp_path / "elsewhere")
    assert find_artifact(tmp_path / "elsewhere" / "tiny", "tokenizer").is_relative_to(tmp_path / "elsewhere")
    moved = Project.of(loading.table, tmp_path / "elsewhere").run()
    assert "train_generator: done before, unchanged" in moved.printed


@pytest.mark.parametrize("write", range(1, 5))
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_one_of_the_first_writes_leaves_a_folder_that_the_same_command_takes(tmp_path, write, after):
    project = Project(tmp_path, train_tokenizer=SHORT)

    def die_at_a_write() -> None:
        left, real = [write], Path.replace

        def replace(path: Path, target: Path) -> Path:
            left[0] -= 1
            if left[0] == 0 and not after:
                kill()
            result = real(path, target)
            if left[0] == 0:
                kill()
            return result

        Path.replace = replace
        project.run()

    in_a_process_that_dies(die_at_a_write)
    project.run()
    assert read_results(project.folder) == project.results
    assert project.artifact("tokenizer").is_dir()


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_what_a_kill_leaves_of_the_first_record_is_no_obstacle(tmp_path, content):
    project = Project(tmp_path, train_tokenizer=SHORT)
    project.folder.mkdir()
    (project.folder / ".lock").touch()
    if content is not None:
        (project.folder / "run.json").write_bytes(content)
        (project.folder / ".writing-.run.json.copy").write_bytes(content)
    assert project.run().artifact("tokenizer").is_dir()


def test_a_kill_while_half_a_first_record_is_set_aside_is_no_obstacle(tmp_path, monkeypatch):
    project = Project(tmp_path, train_tokenizer=SHORT)
    project.folder.mkdir()
    (project.folder / "run.json").write_text("{")
    monkeypatch.setattr(RunFolder, "save", lambda _: kill())
    in_a_process_that_dies(project.run)
    monkeypatch.undo()
    assert (project.folder / "history" / "damaged-run.json").is_file()
    assert not (project.folder / "run.json").exists()
    assert project.run().artifact("tokenizer").is_dir()


def test_weights_can_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        project = Project(tmp_path, train_tokenizer=SHORT | {"checkpoint_every": 1}).run()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in project.folder.rglob("*.safetensors")}
    assert modes == {0o640}


def killed_before_a_manifest(project: Project) -> tuple[Path, bytes]:
    """Kills a run between the last array of a shard and its manifest; returns that array and its content."""
    import robustok_toolkit.resumable_shards

    def act() -> None:
        robustok_toolkit.resumable_shards.write_manifest = lambda *_: kill()
        project.run()

    in_a_process_that_dies(act)
    (array,) = (project.folder / "checkpoints").glob("tokenize-*/*.npy")
    return array, array.read_bytes()


def test_a_shard_without_a_manifest_is_made_again(trained, tmp_path):
    project = Project.of({**trained.table, "stage": trained.table["stage"][:2]}, tmp_path)
    array, content = killed_before_a_manifest(project)
    array.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    project.run()
    assert "shards exist already" not in project.printed
    assert contents(project.artifact("latents")) == contents(trained.artifact("latents"))


def test_a_shard_of_an_earlier_version_needs_no_manifest(trained, tmp_path):
    project = Project.of({**trained.table, "stage": trained.table["stage"][:2]}, tmp_path)
    killed_before_a_manifest(project)
    record = read_json(project.folder / "run.json")
    del record["checksum"]
    for entry in record["stages"].values():
        entry.pop("manifests", None)
    write_json(project.folder / "run.json", record)
    assert re.search(r": 1 of \d+ shards exist already", project.run().printed)
    assert contents(project.artifact("latents")) == contents(trained.artifact("latents"))


def test_shards_that_were_damaged_before_the_artifact_was_complete_are_made_again(trained, tmp_path):
    project = Project.of({**trained.table, "stage": trained.table["stage"][:2]}, tmp_path)
    killed_in_a_shard(project.run, 3)
    first = sorted((project.folder / "checkpoints").glob("tokenize-*/train-*.codes.npy"))[0]
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    project.run()
    assert f"{first}: its content has changed since it was written; this shard is made again" in project.printed
    assert contents(project.artifact("latents")) == contents(trained.artifact("latents"))
