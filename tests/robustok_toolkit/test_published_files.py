"""The list of published files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from project import registry_with
from robustok_core import RobustokError, hookimpl, load_registry
from robustok_toolkit.published_files import NO_IMPORTER, PublishedFile, published_files, read_published_files

ROOT = Path(__file__).resolve().parents[2]
FILES = published_files(load_registry())


def test_every_file_is_listed_once_with_an_importer_that_there_is(registry):
    assert {file.importer for file in FILES} <= {*registry.names("importer"), NO_IMPORTER}
    assert len({file.place for file in FILES}) == len(FILES)


def test_every_importer_of_published_files_has_a_file_in_the_list(registry):
    general = {"auto", "diffusers"}  # they read files of many
    assert {file.importer for file in FILES} >= set(registry.names("importer")) - general


def test_the_table_in_the_readme_is_made_of_the_list():
    script = importlib.util.spec_from_file_location("published_models", ROOT / "docs" / "published_models.py")
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    text = module.README.read_text(encoding="utf-8")
    assert text == module.with_table(text), "run python docs/published_models.py"


def test_the_command_prints_every_address_whole_on_a_narrow_terminal(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, output, errors = command("import", "--list")
    assert code == 0, errors
    lines = output.splitlines()
    assert all(f"  {file.place}  {file.size}" in lines for file in FILES)
    heading = lines[lines.index("  hf://qiuk6/RobusTok/main-train.pt  172.3 M parameters") - 1]
    assert heading.startswith("RobusTok  [importer robustok; licence of the code: ADOBE RESEARCH LICENSE")


def test_the_list_as_json_has_every_field(command):
    code, output, errors = command("import", "--list", "--json")
    assert code == 0, errors
    assert [PublishedFile(**entry) for entry in json.loads(output)] == FILES


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--list", "auto", "file.pt", "out"], "--list takes neither"),
        (["--json", "file.pt", "out"], "belongs to --list"),
    ],
)
def test_options_of_the_list_that_do_not_belong_together_are_refused(command, words, complaint):
    code, _, errors = command("import", *words)
    assert code == 2
    assert complaint in errors


def test_a_file_of_which_little_is_known_says_so(tmp_path):
    (tmp_path / "list.toml").write_text(_ONE)
    (file,) = read_published_files(tmp_path / "list.toml")
    assert (file.size, file.licence, file.name) == ("size unknown", "unknown", "net.pt")


_ONE = """
[[system]]
name = "Theirs"
importer = "theirs"
files = [{ place = "hf://them/net/net.pt" }]
"""


def test_a_plugin_lists_its_files_in_a_table_of_its_own(tmp_path):
    class Plugin:
        @hookimpl
        def robustok_published_files(self):
            return tmp_path / "list.toml"

    (tmp_path / "list.toml").write_text(_ONE)
    found = published_files(registry_with(Plugin()))
    assert len(found) == len(FILES) + 1
    assert "hf://them/net/net.pt" in {file.place for file in found}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: None, "must return a Path, found NoneType"),
        (lambda: 1 / 0, "the plugin 'test0' failed in robustok_published_files .ZeroDivisionError"),
        (lambda: Path("nowhere.toml"), "nowhere.toml: this list of published files cannot be read"),
    ],
)
def test_a_plugin_without_a_list_is_one_message(answer, words):
    class Plugin:
        @hookimpl
        def robustok_published_files(self):
            return answer()

    with pytest.raises(RobustokError, match=words):
        published_files(registry_with(Plugin()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[system]\n", "this list of published files cannot be read"),
        (_ONE.replace("importer", "import"), "system.0.importer: the key is missing"),
        (_ONE.replace("place", "path"), "place: the key is missing"),
        (_ONE.replace('net.pt"', 'net.pt", parameters = -1.0'), "parameters"),
    ],
)
def test_a_damaged_list_is_one_message(tmp_path, text, words):
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(RobustokError, match=words) as caught:
        read_published_files(tmp_path / "list.toml")
    assert caught.value.where == str(tmp_path / "list.toml")
