"""The list of published files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from project import registry_with
from robustok_core import RobustokError, hookimpl, load_registry
from robustok_toolkit.published_files import NO_IMPORTER, published_files, read_published_files

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


def test_the_command_prints_every_file_whole(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    code, output, errors = command("import", "--list")
    assert code == 0, errors
    assert all(file.place in output for file in FILES)
    line = next(line for line in output.splitlines() if "hf://qiuk6/RobusTok/main-train.pt" in line)
    assert line.split()[0] == "RobusTok"
    assert "172.3 M" in line
    assert line.split()[-1] == "robustok"


def test_a_file_of_which_little_is_known_says_so(tmp_path):
    (tmp_path / "list.toml").write_text(_ONE)
    (file,) = read_published_files(tmp_path / "list.toml")
    assert (file.size, file.licence, file.name) == ("unknown", "unknown", "net.pt")


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
