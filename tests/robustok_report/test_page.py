"""The page in a real browser: it works, it is accessible, it fits, and it loads nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from browser import visited
from robustok_core.runs.devices import device_called
from robustok_core.runs.files import write_json
from robustok_core.runs.run_record import read_run, write_run
from robustok_report.page import Page
from robustok_report.several import compared
from robustok_toolkit.report_parts import (
    Bars,
    BeforeAfter,
    Cell,
    Fact,
    Facts,
    Heatmap,
    Lines,
    Pictures,
    Points,
    Section,
    Series,
    Table,
    Text,
)
from robustok_toolkit.reported_run import ReportedRun

HURT = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"


def all_drawn(visit) -> None:
    """Scrolls through the page, so that every figure is drawn and every picture loaded."""
    visit.page.evaluate("document.querySelectorAll('[data-plot]').forEach((plot) => plot.scrollIntoView())")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    visit.page.wait_for_function(
        "[...document.querySelectorAll('[data-plot]')].every((plot) => plot.querySelector('.main-svg'))"
    )


@pytest.fixture(scope="module")
def opened(complete, browser):
    """The report in a wide window, drawn; a test leaves its switches as they were."""
    with visited(browser, complete.folder / "report.html", width=1440) as visit:
        all_drawn(visit)
        yield visit


def test_a_report_works_in_a_wide_window(opened):
    assert opened.errors == []
    assert opened.requests == []
    assert not opened.overflows


def test_a_report_works_on_a_phone(complete, browser):
    with visited(browser, complete.folder / "report.html", width=360) as visit:
        all_drawn(visit)
        assert visit.errors == []
        assert not visit.overflows


def test_a_report_has_no_barriers(opened):
    """Labels, contrast, order of headings: what axe-core can tell."""
    assert opened.barriers() == []


def test_every_picture_has_content(opened):
    sizes = opened.page.evaluate(
        "Promise.all([...document.images].map(async (one) => { one.loading = 'eager'; await one.decode();"
        " return one.naturalWidth * one.naturalHeight; }))"
    )
    assert len(sizes) > 50
    assert min(sizes) >= 32 * 32


def test_the_slider_moves_with_the_arrow_keys(opened):
    slider = opened.page.locator("[data-slider]").first
    place = "getComputedStyle(document.querySelector('[data-compared]')).getPropertyValue('--place')"
    before = opened.page.evaluate(place)
    slider.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowRight")
    assert (before, opened.page.evaluate(place)) == ("50%", "52%")
    covered = opened.page.evaluate("getComputedStyle(document.querySelector('.pair img + img')).clipPath")
    assert "48%" in covered, "the picture before covers the first 52 %"


def test_curves_can_be_smoothed_and_drawn_on_a_logarithmic_axis(opened):
    plot = "document.querySelector('[data-curves]')"
    raw = opened.page.evaluate(f"{plot}.data[0].y")
    opened.page.locator('[data-switch="log"]').first.check()
    assert opened.page.evaluate(f"{plot}.layout.yaxis.type") == "log"
    opened.page.locator('[data-switch="smoothing"]').first.focus()
    opened.page.keyboard.press("End")
    smooth = opened.page.evaluate(f"{plot}.data[0].y")
    assert smooth[0] == pytest.approx(raw[0]), "the average starts without a bias"
    assert np.ptp(smooth) < np.ptp(raw)


def test_no_name_becomes_markup(browser, tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    parts = [
        Text(HURT),
        Facts([Fact(HURT, HURT, HURT)]),
        Table(HURT, [HURT, HURT], [[HURT, Cell(HURT, hint=HURT)]]),
        Pictures(HURT, {HURT: [picture]}, [HURT]),
        BeforeAfter(HURT, {HURT: [picture]}, {HURT: [picture]}, (HURT, HURT)),
        Lines(HURT, [Series(HURT, [0, 1], [0, 1]), Series("b", [0], [1])], x=HURT, y=HURT, mark=(0.5, HURT)),
        Points(HURT, [0], [0], [HURT], x=HURT, y=HURT, colours=[1], colour=HURT, labelled=True),
        Bars(HURT, [HURT], [1], x=HURT, y=HURT),
        Heatmap(HURT, [HURT], [HURT], [[1.0]], x=HURT, y=HURT),
    ]
    file = tmp_path / "page.html"
    page = Page(title=HURT, subtitle=HURT, sections=[Section(HURT, parts, why=HURT)], missing=[HURT])
    file.write_text(page.html())
    with visited(browser, file) as visit:
        all_drawn(visit)
        assert visit.page.evaluate("window.hurt") is None
        assert (visit.errors, visit.requests) == ([], [])
        assert visit.page.title() == f"{HURT} – robustok"
        assert visit.page.locator("main h2").all_inner_texts() == ["What is missing", HURT]


def another_run(folder: Path, to: Path, *, seed: int, beta: float, scale: float) -> Path:
    """A copy of a run as if it had another name, seed and strength, with results `scale` times as large."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("checkpoints", "history", "report.html"))
    recipe = (to / "recipe.toml").read_text()
    recipe = re.sub(r"(?m)^seed = \d+", f"seed = {seed}", recipe)
    (to / "recipe.toml").write_text(re.sub(r"(?ms)^(\[perturbation\]$.*?^beta = )[^\n]*", rf"\g<1>{beta}", recipe))
    record = read_run(to)
    for entry in record["stages"].values():
        entry["results"] = {name: {**one, "value": one["value"] * scale} for name, one in entry["results"].items()}
    tables = {
        f"{stage}/{name}": one
        for stage, fingerprint in record["current"].items()
        for name, one in record["stages"][f"{stage}-{fingerprint}"]["results"].items()
    }
    write_json(to / "results.json", tables)
    write_run(to, {**record, "seed": seed})
    return to


def test_twenty_runs_of_ten_classes_fit_into_one_page(complete, browser, tmp_path, registry):
    """Four arms of five seeds, each with its results."""
    folders = [
        another_run(complete.folder, tmp_path / f"b{arm}s{seed}", seed=seed, beta=arm / 8, scale=arm + seed / 100)
        for arm in range(1, 5)
        for seed in range(5)
    ]
    runs = [ReportedRun(folder, registry, device_called("cpu")) for folder in folders]
    assert [run.missing for run in runs] == [[]] * 20
    assert len(runs[0].data.class_names) == 10
    page = compared(runs)
    assert page.missing == []
    assert "in 4 arms" in page.subtitle
    file = tmp_path / "compared.html"
    file.write_text(page.html())
    assert file.stat().st_size < 15e6
    scatters = [part for section in page.sections for part in section.parts if isinstance(part, Points)]
    gfd = [run.results["evaluate_generator/gfd_fashion_classifier"].value for run in runs]
    assert any(sorted(part.up) == sorted(gfd) for part in scatters), "each run is a point with its own value"
    assert len(set(gfd)) == 20
    with visited(browser, file, width=360) as visit:
        all_drawn(visit)
        assert (visit.errors, visit.requests, visit.overflows) == ([], [], False)
        samples = visit.page.locator("section:has(> h2:text-is('Samples')) figure")
        assert samples.count() == 10
        assert samples.first.locator("img").count() >= 20 * 2
