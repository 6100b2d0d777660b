"""What the pages of documentation show: every command, program, recipe fragment and file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import tomli
import tomli_w
from PIL import Image

from robustok_core import Recipe
from robustok_core.cli import main
from robustok_core.runs.checking import check
from robustok_study.plan import make_plan
from robustok_study.spec import read_study_file
from snippets import assert_options_exist, assert_understood, blocks, commands, indented

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
}
SHELLS = {page: [*blocks(text, "bash"), *blocks(text, "sh"), *indented(text)] for page, text in PAGES.items()}


def pages_with(language: str) -> list[str]:
    return [page for page, text in PAGES.items() if blocks(text, language)]


@pytest.fixture(scope="module")
def reader(trained, tmp_path_factory) -> Path:
    """The folder of somebody who reads the pages: a run, one that was pushed, an import, and images."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(trained.folder, folder / "runs" / "main_train")
    shutil.copytree(trained.artifact("tokenizer"), folder / "tokenizers" / "robustok")
    for name in {
        name for shells in SHELLS.values() for shell in shells for name in re.findall(r"run.name=(\w+)", shell)
    }:
        (folder / "runs" / name).mkdir(exist_ok=True)
        shutil.copy(trained.folder / "results.json", folder / "runs" / name)
    for number in range(400):
        image = folder / "photos" / ("cats" if number % 2 else "dogs") / f"{number // 2}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (number % 256, 90, 120)).save(image)
    with pytest.raises(SystemExit):
        main(["push", str(folder / "runs" / "main_train"), "me/tokenizer", "--to", str(folder / "folder")])
    for page, text in PAGES.items():
        for name, fragment in re.findall(r"Save this as `([\w.]+)`.*?^```toml\n(.*?)^```$", text, re.DOTALL | re.M):
            assert not (folder / name).exists(), f"{page}: another page calls its recipe {name}, too"
            (folder / name).write_text(fragment, encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", [page for page, shells in SHELLS.items() if any(map(commands, shells))])
def test_commands_have_the_arguments_that_they_are_shown_with(page, registry, reader, monkeypatch):
    monkeypatch.chdir(reader)
    for arguments in (arguments for block in SHELLS[page] for arguments in commands(block)):
        assert_understood(arguments, registry)


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_exist(page):
    assert_options_exist(PAGES[page])


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_programs_of_a_page_run_one_after_the_other(page, reader, monkeypatch):
    monkeypatch.chdir(reader)
    before, names = set(reader.iterdir()), {"__name__": "__main__"}
    for program in blocks(PAGES[page], "python"):
        exec(compile(program, page, "exec"), names)
    for made in set(reader.iterdir()) - before:
        made.unlink()


#: The study in which a claim on a correlation can stand.
TEN_ARMS = """
recipe = "main_train"
seeds = [0]
[metrics]
rFD = "evaluate_tokenizer/rfd_efficientnet_lite0"
pFD = "evaluate_tokenizer/pfd_efficientnet_lite0"
gFD = "evaluate_generator/gfd_efficientnet_lite0"
[quick.set]
data.train_limit = 640
""" + "".join(
    f'[[arm]]\nname = "epochs{number}"\nset.stage.train_tokenizer.epochs = {number}\n' for number in range(1, 11)
)


@pytest.mark.parametrize("page", pages_with("toml"))
def test_fragments_of_recipes_make_whole_recipes_and_studies_plans(page, registry, reader, monkeypatch, tmp_path):
    monkeypatch.chdir(reader)
    for number, fragment in enumerate(blocks(PAGES[page], "toml")):
        file = reader / f"fragment{number}.toml"
        file.write_text(fragment, encoding="utf-8")
        table = tomli.loads(fragment)
        if "correlation" in table and "arm" not in table:
            table = {**tomli.loads(TEN_ARMS), **table}
            file.write_text(tomli_w.dumps(table), encoding="utf-8")
        if "arm" in table:
            for quick in (False, True):
                make_plan(read_study_file(str(file), registry, quick=quick), tmp_path / "study", registry)
            continue
        missing = {} if "data" in table or "extends" in table else {"data": {"use": "fashion_mnist"}}
        check(Recipe.load(file, overrides=missing), registry=registry)


@pytest.mark.parametrize("page", PAGES)
def test_scripts_and_links_lead_to_files(page):
    scripts = re.findall(r"\bpython ((?:\w+/)+\w+\.py)", PAGES[page])
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]) if "://" not in link]
    lost = [script for script in scripts if not (ROOT / script).is_file()]
    made = "auto_tutorial"  # by the build
    lost += [link for link in links if made not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert lost == []
