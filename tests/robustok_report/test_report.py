"""What a report holds, what it names as missing, and that it never costs a run."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from project import COLOURS, CONTINUOUS, Project, contents, registry_with
from report_pages import figures_of, missing
from robustok_core import RobustokError, hookimpl
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.run_record import read_run, write_run
from robustok_report.report import write_report
from robustok_toolkit.report_parts import Points, Section, Text

SECTIONS = ["Numbers", "Reconstructions", "Robustness", "Samples", "Post-training", "Codebook", "Training", "What ran"]


def headings(text: str) -> list[str]:
    return re.findall(r'<h2 id="section-[^>]*>(.*?)</h2>', text)


def reported(folder, tmp_path, registry) -> str:
    file = tmp_path / "report.html"
    write_report([folder], file, registry=registry)
    return file.read_text()


def test_a_complete_run_has_every_section_and_lacks_nothing(page):
    assert headings(page) == SECTIONS


@pytest.mark.parametrize(
    "shown",
    [
        "One held-out image of each class",
        "A rising share α of the tokens replaced",
        "of the tokens replaced by one of the δ nearest codes",
        "pFD by strength",
        "Distance of perturbed latents to generated latents",
        "gFD over guidance",
        "Decoders compared",
        "changed most",
        "changed least",
        "Images along σ",
        "Codewords, by t-SNE",
        "Usage of the codes",
        "train_tokenizer: Loss",
        "train_tokenizer: Learning rate",
        "train_tokenizer: Throughput",
        "Cost of each stage",
        "values that differ from their defaults",
    ],
)
def test_a_report_shows(page, shown):
    assert shown in page


def test_the_same_run_gives_the_same_file(complete, page, tmp_path, registry):
    assert reported(complete.folder, tmp_path, registry) == page


def test_a_run_with_a_continuous_space_lacks_nothing(tmp_path, registry):
    noise = {"use": "noise_pfd", "features": COLOURS["features"], "alphas": [0.5, 1.0], "levels": [0.5, 1.0]}
    measured = {"use": "evaluate_tokenizer", "metrics": {"rfd": COLOURS, "noise": noise}}
    project = Project(tmp_path / "runs", ["train_tokenizer", measured], **CONTINUOUS).run()
    text = reported(project.folder, tmp_path, registry)
    assert missing(text) == ""
    assert headings(text) == ["Numbers", "Reconstructions", "Robustness", "Training", "What ran"]
    assert "noise pFD compared with no perturbation" in text
    (drawn,) = figures_of(text)["noise pFD by strength"]["data"]
    cells = project.results["evaluate_tokenizer/noise_pfd_gaussian_fashion_classifier"].details["cells"]
    assert [value for row in drawn["z"] for value in row] == list(cells.values())


def test_images_that_changed_since_the_run_are_named(copied, tmp_path, registry):
    """What is shown as held out may have been trained on."""
    record = read_run(copied)
    write_run(copied, {**record, "data": {**record["data"], "validation": "another"}})
    text = reported(copied, tmp_path, registry)
    assert "the held-out images of the run: the data set has others now, which are used" in missing(text)
    assert "the training images" not in missing(text)
    assert headings(text) == SECTIONS


def test_a_run_writes_a_report_unless_its_recipe_says_no_and_its_results_are_the_same(tmp_path):
    with_report = Project(tmp_path / "with", run={"report": True}).run()
    without = Project(tmp_path / "without", run={"report": False}).run()
    assert (with_report.folder / "report.html").is_file()
    assert not (without.folder / "report.html").exists()
    one, other = contents(with_report.folder / "artifacts"), contents(without.folder / "artifacts")
    assert one == other


def test_a_report_that_cannot_be_written_is_a_note_and_the_run_ends_well(tmp_path):
    project = Project(tmp_path, run={"report": True}).run()
    (project.folder / "report.html").unlink()
    (project.folder / "report.html").mkdir()
    project.run()
    assert "failed in robustok_run_finished" in project.printed
    assert project.results


class Broken:
    """A plugin whose section fails."""

    @hookimpl
    def robustok_report_section(self, run):
        raise ValueError("no luck today")


class Misfilled:
    """A plugin with a good section, one that cannot be drawn, and something else."""

    @hookimpl
    def robustok_report_section(self, run):
        drawn = Points("p", [1], [2], ["one"], x="x", y="y", colours=[object()])
        return [Section("Ours", [Text("all is well")]), Section("Theirs", [drawn]), "not a section"]


def test_a_plugin_that_fails_is_named_and_the_others_are_shown(complete, tmp_path):
    text = reported(complete.folder, tmp_path, registry_with(Broken(), Misfilled()))
    assert headings(text) == [*SECTIONS, "Ours"]
    lines = missing(text)
    assert "no luck today" in lines
    assert "test0" in lines
    assert "the section Theirs, which cannot be shown" in lines
    assert "returned a str, not a Section" in lines


def test_an_unfinished_run_gives_a_report_of_what_is_there(tmp_path, registry):
    project = Project(tmp_path / "runs", ["train_tokenizer", "tokenize", "train_generator"])
    project.run(until="tokenize")
    text = reported(project.folder, tmp_path, registry)
    assert {"Reconstructions", "Codebook", "Training", "What ran"} <= set(headings(text))
    assert "the stage train_generator: not begun" in missing(text)


def damage_results(folder):
    (folder / "results.json").write_text("{")


def lose_the_copies_of_the_record(folder):
    (folder / "run.json").write_text("{")


def damage_the_log(folder):
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"stage": \n')


def damage_the_samples(folder):
    for file in folder.glob("artifacts/samples-*/samples.npz"):
        file.write_bytes(b"PK")


def damage_a_tokenizer(folder):
    for file in folder.glob("artifacts/tokenizer-*/model.safetensors"):
        file.write_bytes(b"")


def damage_the_recipe(folder):
    (folder / "recipe.toml").write_text("= broken")


@pytest.mark.parametrize(
    ("damage", "named", "still"),
    [
        (damage_results, "results.json", "Numbers"),
        (lose_the_copies_of_the_record, "run.json", "Numbers"),
        (damage_the_log, "1 damaged line", "Training"),
        (damage_the_samples, "the samples: ", "Samples"),
        (damage_a_tokenizer, "the section Reconstructions", "Samples"),
        (damage_the_recipe, "recipe.toml", "Numbers"),
    ],
)
def test_what_is_damaged_is_named_and_the_rest_is_shown(copied, tmp_path, registry, damage, named, still):
    damage(copied)
    text = reported(copied, tmp_path, registry)
    assert named in missing(text)
    assert still in headings(text)


def test_a_run_of_an_earlier_version_gives_a_report(copied, tmp_path, registry):
    """It has no manifests, bare numbers as results, and records less of how it was made."""
    for manifest in copied.rglob("manifest.json"):
        manifest.unlink()
    record = read_json(copied / "run.json")
    for entry in record["stages"].values():
        for key in ("made_with", "manifests", "without_code"):
            entry.pop(key, None)
        entry["results"] = {name: result["value"] for name, result in entry["results"].items()}
    for key in ("checksum", "recipe", "results"):
        record.pop(key)
    write_json(copied / "run.json", record)
    (copied / ".run.json.copy").unlink()
    results = read_json(copied / "results.json")
    write_json(copied / "results.json", {name: result["value"] for name, result in results.items()})
    text = reported(copied, tmp_path, registry)
    assert {"Numbers", "Reconstructions", "Samples", "Codebook", "Training", "What ran"} <= set(headings(text))
    assert missing(text) == ""


def test_stages_taken_from_one_run_are_named_together_and_auto_is_said_once(copied, tmp_path, registry):
    record = read_run(copied)
    for number, entry in enumerate(record["stages"].values()):
        entry["taken_from"] = "/other/run" if number < 2 else None
        entry["made_with"] = [{**made, "auto_precision": "no" if number % 2 else None} for made in entry["made_with"]]
    write_run(copied, record)
    text = reported(copied, tmp_path, registry)
    names = [key.rpartition("-")[0] for key in record["stages"]][:2]
    assert f"{', '.join(names)}, from /other/run<" in text
    assert "Precision &#34;auto&#34; float32 " in " ".join(re.sub("<[^>]*>", " ", text).split())


def test_a_folder_that_is_no_run_is_refused(refused, tmp_path):
    from click.testing import CliRunner

    from robustok_core import RobustokError
    from robustok_report.command import report

    done = CliRunner().invoke(report, [str(tmp_path)])
    assert isinstance(done.exception, RobustokError)
    assert "not a run folder" in str(done.exception)


def test_the_command_writes_the_file_that_it_is_asked_for(complete, tmp_path):
    from click.testing import CliRunner

    from robustok_report.command import report

    done = CliRunner().invoke(report, [str(complete.folder), "--out", str(tmp_path / "a.html"), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("name", ["thesis.tex", "other.html", "folder"])
def test_only_an_older_report_is_replaced(complete, tmp_path, registry, name):
    file = tmp_path / name
    if name == "folder":
        file.mkdir()
    else:
        file.write_text("<!doctype html><html><head></head><body>mine</body></html>")
    with pytest.raises(RobustokError, match=f"{name}: this already exists, and is no report"):
        write_report([complete.folder], file, registry=registry, device="cpu")
    assert file.is_dir() or "mine" in file.read_text()
    for _ in range(2):
        write_report([complete.folder], tmp_path / "a.html", registry=registry, device="cpu")


@pytest.mark.parametrize("place", ["page", "figures"])
def test_what_cannot_be_written_is_refused_before_anything_is_drawn(complete, tmp_path, registry, place):
    (tmp_path / "file").write_text("mine")
    page = tmp_path / ("file/r.html" if place == "page" else "r.html")
    pdf = None if place == "page" else tmp_path / "file" / "figures"
    with pytest.raises(RobustokError, match="file is no folder"):
        write_report([complete.folder], page, registry=registry, pdf=pdf)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_figures_become_vector_pdf_from_the_same_data(complete, tmp_path, registry):
    pytest.importorskip("matplotlib")
    write_report([complete.folder], tmp_path / "r.html", registry=registry, pdf=tmp_path / "figures")
    drawn = sorted(file.name for file in (tmp_path / "figures").iterdir())
    on_page = len(re.findall(r"<div class=\"plot\"", (tmp_path / "r.html").read_text()))
    assert len(drawn) == on_page
    assert "robustness-pfd-by-strength.pdf" in drawn
    assert all((tmp_path / "figures" / name).read_bytes().startswith(b"%PDF") for name in drawn)


def test_names_from_files_are_shown_as_they_are(copied, tmp_path, registry):
    """A class may be called anything, and so may a stage of a log."""
    hurt = "<script>window.hurt = 1</script>"
    for folder in copied.glob("artifacts/samples-*"):
        about = read_json(folder / "samples.json")
        about["class_names"] = [hurt] * len(about["class_names"])
        write_json(folder / "samples.json", about)
        (folder / "manifest.json").unlink()
    record = json.loads((copied / "run.json").read_text())
    for entry in record["stages"].values():
        entry.pop("without_code", None)
    record.pop("checksum")
    write_json(copied / "run.json", record)
    text = reported(copied, tmp_path, registry)
    assert hurt not in text
    assert "&lt;script&gt;window.hurt = 1&lt;/script&gt;" in text


def test_a_run_may_have_been_moved(complete, tmp_path, registry):
    moved = shutil.copytree(complete.folder, tmp_path / "elsewhere")
    text = reported(moved, tmp_path, registry)
    assert headings(text) == SECTIONS
    assert missing(text) == ""
