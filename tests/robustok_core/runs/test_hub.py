"""Published files by their address on the Hugging Face hub, whose part a server on this machine takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save

from file_server import FileServer
from project import Project, contents
from readers import published_weights
from robustok import load_generator, load_tokenizer
from robustok_core import RobustokError
from robustok_core.runs.files import read_json
from robustok_core.runs.fingerprints import content_fingerprint, sha256_of
from robustok_core.runs.hub import HubFile, hub_file_of, pinned

FILE = "hf://qiuk6/RobusTok/deep/tiny.safetensors"
COMMIT = "0" * 40  # the server's
PINNED = f"{FILE}@{COMMIT}"
WEIGHTS = save(published_weights("robustok_tokenizer_a"))
EVALUATION = {"use": "evaluate_tokenizer", "limit": 20, "metrics": {"psnr": {"use": "psnr"}}}
OPTIONS = {"num_heads": 2}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """A hub with one file on its main branch, and an empty cache."""
    server = FileServer(**{"qiuk6/RobusTok/resolve/main/deep/tiny.safetensors": WEIGHTS})
    for module in ("huggingface_hub.constants", "huggingface_hub.file_download.constants"):
        monkeypatch.setattr(f"{module}.ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{module}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.stop()


@pytest.fixture
def offline(hub: FileServer, monkeypatch: pytest.MonkeyPatch):
    """Forbids the use of the hub from now on."""
    return lambda: monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def loading(out: Path, address: str = FILE, **importer) -> Project:
    """A project that evaluates the published tokenizer, whose images have 16 x 16 pixels."""
    project = Project(out, [EVALUATION])
    entry = {"path": address, "importer": importer or {"use": "auto", "options": OPTIONS}}
    project.table["load"] = {"tokenizer": entry}
    project.table["data"] |= {"image_size": 16}
    return project


def place(server: FileServer, name: str, content: bytes, revision: str = "main") -> None:
    server.files[f"/qiuk6/RobusTok/resolve/{revision}/{name}"] = content


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [FILE, f"{FILE}@v1.0", f"{FILE}@refs/pr/3", "hf://a/b/c"])
def test_an_address_is_read_and_written_alike(address):
    assert str(hub_file_of(address)) == address
    assert str(hub_file_of(str(Path(address)))) == address, "a path that was made of it has one slash"


def test_a_path_is_no_address():
    assert hub_file_of("runs/hf") is None
    assert pinned(Path("runs/hf")) is None


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/name", "hf://owner/name/", "hf://a/b/c@"])
def test_an_address_without_a_file_is_refused(address, tmp_path):
    assert f"{address}: this names no file of the hub" in loading(tmp_path, address).refusal()


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("https://huggingface.co/a/b/resolve/main/x/c.pt?download=true", "hf://a/b/x/c.pt@main"),
        ("https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt", "download the file"),
    ],
)
def test_the_address_of_a_web_page_is_refused_with_what_to_write_instead(refused, tmp_path, address, hint):
    printed = refused("import", "titok", address, "out")
    assert hint in printed
    assert "this is the address of a web page, not the path of a file" in printed
    assert "this is the address of a web page" in loading(tmp_path, address).refusal()
    with pytest.raises(RobustokError, match="this is the address of a web page"):
        load_tokenizer(address, importer="titok")


# --- import, [load] and load_tokenizer ------------------------------------------------------------


def test_import_records_the_commit_and_the_checksum(command, hub, tmp_path):
    code, output, errors = command("import", FILE, "out", "--set", "num_heads=2")
    assert code == 0, errors
    assert output.startswith("importer: robustok\n")
    record = read_json(tmp_path / "out" / "component.json")
    (file,) = (tmp_path / "hub").glob("*/snapshots/*/deep/tiny.safetensors")
    assert record["imported_from"] == PINNED
    assert record["sha256"] == sha256_of(file)
    assert contents(tmp_path / "hub")[str(file.relative_to(tmp_path / "hub"))] == WEIGHTS


def test_the_revision_is_the_one_that_is_asked_for(command, hub):
    place(hub, "tiny.safetensors", WEIGHTS, revision="v1")
    address = "hf://qiuk6/RobusTok/tiny.safetensors"
    assert command("import", f"{address}@v1", "out", "--set", "num_heads=2")[0] == 0
    assert command("import", address, "other", "--set", "num_heads=2")[0] == 2


def test_the_configuration_beside_the_file_comes_with_it(hub):
    place(hub, "deep/config.json", b'{"a": 1}')
    file = hub_file_of(FILE)
    file.download().fetch()
    assert file.path.with_name("config.json").read_text() == '{"a": 1}'


def test_the_files_of_an_index_come_with_it(hub):
    place(hub, "m.safetensors.index.json", b'{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    place(hub, "one.safetensors", b"one")
    file = HubFile(repository="qiuk6/RobusTok", file="m.safetensors.index.json")
    with pytest.raises(Exception, match="two.safetensors"):
        file.download().fetch()
    assert not file.download().present()
    place(hub, "two.safetensors", b"two")
    file.download().fetch()
    assert file.download().present()


def test_a_recipe_takes_the_file_by_its_address_and_the_next_run_needs_no_network(hub, tmp_path, offline):
    project = loading(tmp_path / "runs").run()
    assert f"will download: {FILE} (" in project.printed
    assert read_json(project.artifact("tokenizer") / "component.json")["imported_from"] == PINNED
    offline()
    again = loading(tmp_path / "again").run()
    assert again.results["evaluate_tokenizer/psnr"].value == project.results["evaluate_tokenizer/psnr"].value
    assert content_fingerprint(again.artifact("tokenizer")) == content_fingerprint(project.artifact("tokenizer"))


def test_a_run_whose_file_left_the_cache_uses_what_it_took(hub, tmp_path, offline):
    project = loading(tmp_path / "runs").run()
    (tmp_path / "hub").rename(tmp_path / "elsewhere")
    offline()
    project.run()
    assert f"[load] tokenizer: {FILE} is no longer there; what this run took from it is used" in project.printed


def test_an_entry_that_is_an_address_alone_is_read_by_its_names(hub, registry, tmp_path):
    project = loading(tmp_path / "runs")
    project.table["load"] = {"tokenizer": FILE}
    plan = project.check(registry)
    assert plan.recipe.load["tokenizer"].importer.name == "auto"


def test_a_program_loads_the_file_by_its_address(hub):
    by_names = load_tokenizer(FILE, importer={"use": "auto", "options": OPTIONS})
    named = load_tokenizer(Path(FILE), importer={"use": "robustok", **OPTIONS})
    assert by_names.tokenizer.space == named.tokenizer.space == load_tokenizer(FILE).tokenizer.space


def test_a_generator_by_its_address_needs_a_tokenizer_and_is_none(hub):
    place(hub, "rar.safetensors", save(published_weights("rar_a")))
    address = "hf://qiuk6/RobusTok/rar.safetensors"
    with pytest.raises(RobustokError, match="a published generator has no tokenizer of its own"):
        load_generator(address)
    with pytest.raises(RobustokError, match="the importer 'auto' makes a generator, not a tokenizer"):
        load_tokenizer(address)


# --- check, fetch, and what cannot be had ---------------------------------------------------------


def test_fetch_gets_the_file_and_check_then_needs_no_network(command, hub, recipe_file, offline):
    load = {"tokenizer": {"path": FILE, "importer": {"use": "robustok", **OPTIONS}}}
    file = recipe_file({"data.image_size": 16, "load": load}, stages=[EVALUATION])
    code, output, errors = command("fetch", file)
    assert code == 0, errors
    assert f"downloading 1 of 1: {FILE} (" in output
    offline()
    assert command("check", file)[:2] == (0, f"{file}: good\n")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("hf://qiuk6/RobusTok/other.pt", "qiuk6/RobusTok has no file other.pt"),
        (f"{FILE}@v9", "qiuk6/RobusTok has no file deep/tiny.safetensors"),  # so this server says
    ],
)
def test_a_file_that_the_hub_does_not_have_is_one_message(refused, hub, registry, tmp_path, address, reason):
    assert f"cannot get {address} from 127.0.0.1: {reason}" in refused("import", address, "out")
    project = loading(tmp_path, address)
    for act in (project.run, lambda: project.check(registry)):
        with pytest.raises(RobustokError) as caught:
            act()
        assert str(caught.value).count("cannot get") == 1
        assert str(caught.value).startswith("recipe: ")
        assert reason in caught.value.what
    assert not project.folder.exists()


def test_without_a_network_a_file_that_is_not_here_is_one_message(refused, hub, tmp_path, offline):
    offline()
    message = refused("import", FILE, "out")
    assert f"cannot get {FILE} from 127.0.0.1: HF_HUB_OFFLINE is set" in message
    assert not (tmp_path / "out").exists()


def test_a_hub_that_does_not_answer_is_one_message(refused, hub):
    hub.stop()
    assert f"cannot get {FILE} from 127.0.0.1: " in refused("import", FILE, "out")


def test_a_damaged_file_of_the_cache_is_named_by_its_checksum(refused, command, hub, tmp_path):
    assert command("import", FILE, "out", "--set", "num_heads=2")[0] == 0
    (blob,) = [file for file in (tmp_path / "hub").glob("*/blobs/*") if file.is_file()]
    blob.write_bytes(WEIGHTS[:-4] + b"\0\0\1\0")
    message = refused("import", FILE, "two")
    assert re.search("does not have the hash that the hub gave for it\n  hint: delete .*blobs", message)


def test_an_importer_of_another_kind_is_refused(hub, tmp_path):
    message = loading(tmp_path, use="rar").refusal()
    assert "[load] tokenizer: the importer 'rar' makes a generator, not a tokenizer" in message
    place(hub, "rar.safetensors", save(published_weights("rar_a")))
    project = loading(tmp_path, "hf://qiuk6/RobusTok/rar.safetensors", use="auto")
    assert "the importer 'auto' makes a generator, not a tokenizer" in project.refusal()
