"""The page in a real browser. Skipped, with the reason, where there is no gradio or no Chromium."""

from __future__ import annotations

import base64
import gc
import io
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
import pytest
import torch
from PIL import Image

from browser import Visit, visited
from robustok_explorer.opened_run import OpenedRun, open_run
from robustok_explorer.server import served

gradio = pytest.importorskip("gradio", reason="gradio, which the page is made with, is missing")

# Libraries below gradio warn about one another.
pytestmark = pytest.mark.filterwarnings("ignore")
EVIL = "<script>document.title = 'broken into'</script>"
VIEWS = ["Perturb", "Keep a share σ", "Paint", "Neighbours", "Sample"]
#: Milliseconds: generous, since a test's machine may be busy.
SOON = 30_000


@pytest.fixture(scope="module")
def address(post_trained) -> Iterator[str]:
    """The page of a post-trained run that has a class with markup in its name."""
    run = open_run(post_trained.folder, device=torch.device("cpu"))
    run.data.class_names = [EVIL, *run.data.class_names[1:]]
    with served(attrs.evolve(run, missing=[EVIL])) as where:
        yield where
    gc.collect()  # gradio leaves an event loop open, of which Python warns: here, where warnings are not errors


@pytest.fixture(params=[1440, 360])
def visit(request, browser, address) -> Iterator[Visit]:
    with visited(browser, address, width=request.param) as page:
        page.page.set_default_timeout(SOON)
        page.page.wait_for_selector(".rx-tiles img")
        yield page


def pictures(visit: Visit) -> list[str]:
    return [each.get_attribute("src") for each in visit.page.locator(".rx-tiles img:visible").all()]


def changes(visit: Visit, before: list[str]) -> list[str]:
    """The pictures once they are others than before."""
    visit.page.wait_for_function(
        "before => { const now = [...document.querySelectorAll('.rx-tiles img')].filter(i => i.offsetParent)"
        ".map(i => i.src); return now.length && JSON.stringify(now) !== JSON.stringify(before); }",
        arg=before,
    )
    return pictures(visit)


def choose(visit: Visit, view: str) -> None:
    visit.page.get_by_role("radio", name=view, exact=True).check()
    unique = {"Paint": "Take no token", "Neighbours": "Nearest codewords", "Sample": "Guidance"}
    if view in unique:
        visit.page.get_by_text(unique[view]).first.wait_for()


def test_the_page_shows_pictures_and_asks_only_this_machine(visit):
    for source in pictures(visit):
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert len(set(picture.convert("RGB").getdata())) > 1
    for view in VIEWS[1:]:
        choose(visit, view)
    changes(visit, [])
    assert visit.errors == []
    assert {urlsplit(url).hostname for url in visit.requests} <= {"127.0.0.1"}
    assert not visit.overflows
    assert visit.page.title().startswith("robustok view ")


def test_a_slider_moved_by_keys_changes_the_pictures(visit):
    before = pictures(visit)
    slider = visit.page.get_by_role("slider", name="δ").first
    slider.focus()
    for _ in range(3):
        slider.press("ArrowLeft")
    after = changes(visit, before)
    assert len(after) == len(before)
    assert visit.errors == []


def test_another_image_is_chosen_by_keys(visit):
    before = pictures(visit)
    first = visit.page.locator(".rx-images button").first
    first.focus()
    first.press("ArrowRight")
    visit.page.keyboard.press("Enter")
    assert changes(visit, before)[0] != before[0]


def test_tokens_are_painted_with_the_pointer(visit):
    choose(visit, "Paint")
    tokens = visit.page.locator(".rx-tokens:visible button")
    tokens.nth(5).scroll_into_view_if_needed()
    start, end = tokens.nth(5).bounding_box(), tokens.nth(6).bounding_box()
    visit.page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    visit.page.mouse.down()
    visit.page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2, steps=4)
    visit.page.mouse.up()
    visit.page.get_by_text("2 of 16 tokens are taken from").wait_for()
    assert visit.errors == []
    assert any("tokens=[5, 6]" in code for code in visit.page.locator(".rx-code code").all_text_contents())


def test_the_code_of_a_view_is_copied(visit):
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name, begins in (("Python", "import robustok\n"), ("command", "robustok view ")):
        visit.page.get_by_role("button", name=f"Copy as {name}").first.click()
        visit.page.get_by_role("button", name="Copied").wait_for()
        copied = visit.page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith(begins)
        visit.page.get_by_role("button", name=f"Copy as {name}").first.wait_for()


def test_every_view_is_accessible(visit):
    for view in VIEWS:
        choose(visit, view)
        visit.page.wait_for_timeout(300)
        assert visit.barriers() == [], view


def test_markup_in_names_is_text(visit):
    assert visit.page.title().startswith("robustok view ")
    visit.page.get_by_text(EVIL).first.wait_for()


def test_another_host_name_is_refused(address):
    assert httpx.get(address).status_code == 200
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 400


def components_of(run: OpenedRun) -> list[Mapping[str, Any]]:
    """What the page of a run holds before it is opened."""
    from robustok_explorer.page import build_page  # it imports gradio

    found = build_page(run).get_config_file()["components"]
    gc.collect()  # as for `address`
    return found


def test_the_page_says_what_takes_the_place_of_the_runs_perturbation(trained, open_project):
    run = open_project(trained)
    recipe = {name: table for name, table in run.recipe.items() if name != "perturbation"}
    said = "top_delta with its defaults takes the place"
    assert said not in str(components_of(run))
    assert said in str(components_of(attrs.evolve(run, recipe=recipe)))


def test_the_page_begins_with_the_guidance_of_the_recipe(guided, open_project):
    line = 'guidance = { scale = 1000.0, schedule = "cosine", power = 1.5 }'
    said = f"1 is none; in the course of sampling it is as the recipe says: {line}"
    run = open_project(guided)
    (slider,) = [part["props"] for part in components_of(run) if part["props"].get("label") == "Guidance"]
    assert (slider["value"], slider["info"]) == (1000.0, said)


def test_the_page_says_of_a_decoder_alone_whether_it_is_post_trained(trained, post_trained, tmp_path, open_project):
    psnr = {"use": "evaluate_tokenizer", "metrics": {"psnr": {"use": "psnr"}}}
    loaded = open_project(post_trained.later(tmp_path, [psnr]).run())
    assert list(loaded.tokenizers) == [""]
    assert "; decoded after post-training; the decoder before it is not in this run<" in str(components_of(loaded))
    run = open_project(trained)
    assert "; without post-training<" in str(components_of(run))
    assert "; decoded by a published decoder, of which" in str(components_of(attrs.evolve(run, post_trained=None)))
