"""`robustok study` from its file to its verdicts: stages that are shared, a kill, an edit, an arm that fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from no_locks import NO_LOCKS, without_locks
from robustok_core import RobustokError
from robustok_core.runs.files import read_json
from robustok_study.conduct import conduct
from robustok_study.jobs import Jobs
from robustok_study.plan import Plan, Task, make_plan
from robustok_study.record import STUDY_FILE, StudyRecord, read_study, write_study
from robustok_study.spec import read_study_file
from robustok_study.verdicts import verdict_of
from studies import study_table

COMMAND = [sys.executable, "-m", "robustok_core", "study", "s.toml"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def conducted(*options: str, code: int = 0) -> str:
    """Runs the study to its end in another process; returns what it printed."""
    done = subprocess.run(
        [*COMMAND, *options], check=False, capture_output=True, text=True, env=ENVIRONMENT, timeout=600
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def stages(name: str, out: Path = Path("runs/s")) -> list[tuple[str, bool]]:
    """Each finished stage of this name in the study's runs, and whether it was made there."""
    return [
        (run.parent.name, entry.get("taken_from") is None)
        for run in sorted(out.glob("*/run.json"))
        for key, entry in read_json(run)["stages"].items()
        if key.startswith(f"{name}-") and entry["state"] == "done"
    ]


def test_a_study_is_stopped_killed_resumed_and_edited_and_makes_every_shared_stage_once(study_file):
    study_file()
    _until_it_says(r"two-seed0: started", signal.SIGTERM, code=130)
    assert "one-seed0" in dict(stages("train_tokenizer"))
    states = {run.folder: run.state for run in read_study(Path("runs/s")).runs}
    assert states["one-seed0"] != "new", "what was done when it stopped is in the record"
    _until_it_says(r"seed1\S* .*started|seed1: started", signal.SIGKILL, code=-signal.SIGKILL)
    printed = conducted("--jobs", "2")
    assert stages("train_tokenizer") == [(f"{arm}-seed{s}", arm == "one") for arm in ("one", "two") for s in range(3)]
    assert all(made for _, made in stages("evaluate_tokenizer"))
    record = read_study(Path("runs/s"))
    assert (record.missing, [run.state for run in record.runs]) == ([], ["done"] * 6)
    for run in record.runs:  # the time of what was made elsewhere counts there
        entries = read_json(Path("runs/s", run.folder, "run.json"))["stages"].items()
        assert run.seconds == sum(
            entry["seconds"] for key, entry in entries if run.arm == "one" or key.startswith("evaluate")
        )
    psnr, gap = record.metrics
    values = {arm: [summary.by_seed[str(seed)] for seed in range(3)] for arm, summary in psnr.arms.items()}
    for arm, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            results = read_json(Path(f"runs/s/{arm}-seed{seed}/results.json"))
            assert value == results["evaluate_tokenizer/psnr"]["value"]
            measured = (results[f"evaluate_tokenizer/{name}_fashion_classifier"]["value"] for name in ("pfd", "rfd"))
            pfd, rfd = measured
            assert gap.arms[arm].by_seed[str(seed)] == pfd - rfd
    assert values["one"] == values["two"]  # seeds are paired: the arms differ in a picture only
    falls, high = record.claims
    assert (falls.verdict, falls.reason) == ("undecided", "all seeds gave the same number, so they are no repetitions")
    assert high.verdict == "reproduced"
    assert verdict_of(high.difference, "higher", record.seeds)[0] == high.verdict
    assert "| reproduced | it is high |" in Path("runs/s/study.md").read_text()
    assert re.search(r"^reproduced: it is high$\n^  .* higher than 1; one; .* interval ", printed, flags=re.MULTILINE)

    # Edited: what is unchanged stays, and the new arm takes what others made.
    arms = [*study_table()["arm"], {"name": "three", "set": {"stage": {"evaluate_tokenizer": {"batch_size": 20}}}}]
    study_file(arm=arms, seeds=[0])
    before = {file: file.stat().st_mtime_ns for file in Path("runs/s").glob("*/results.json")}
    assert "three-seed0: started" in (printed := conducted())
    assert printed.count(": started") == 1
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert ("three-seed0", False) in stages("train_tokenizer")
    assert [run.folder for run in read_study(Path("runs/s")).runs] == ["one-seed0", "two-seed0", "three-seed0"]

    # Another study takes what this one made.
    study_file(seeds=[0])
    planned = " ".join(conducted("--out", "other", "--reuse", "runs/s", "--dry-run").split())
    assert "one-seed0 new 2 of 2 train_tokenizer, evaluate_tokenizer of runs/s/one-seed0" in planned
    conducted("--out", "other", "--reuse", "runs/s")
    for stage in ("train_tokenizer", "evaluate_tokenizer"):
        assert stages(stage, Path("other/s")) == [("one-seed0", False), ("two-seed0", False)]


def test_a_metric_without_a_value_is_said_as_soon_as_a_run_has_none(study_file):
    odd, odder = (f"evaluate_tokenizer/{name}_fashion_classifier - evaluate_tokenizer/psnr" for name in ("rfd", "pfd"))
    claim = {"text": "it falls", "metric": odder, "arm": "two", "base": "one", "direction": "lower"}
    study_file(claim=[claim], seeds=[0], metrics={"PSNR": "evaluate_tokenizer/psnr", "odd": odd})
    printed = conducted("--jobs", "1", code=1)
    for label in ("odd", odder):
        first, second = (printed.index(f"note: {label}: the arm {arm} has no value: ") for arm in ("one", "two"))
        assert printed.index("one-seed0: done") < first < printed.index("two-seed0: done") < second
    assert printed.count(" has no value: ") == 4
    assert "note: odd" not in conducted("--jobs", "1", code=1)  # nothing ran


def test_an_arm_runs_again_on_what_it_loads_once_that_was_made_anew(study_file):
    arms = [{"name": "one"}, {"name": "two", "stages": ["evaluate_tokenizer"], "load": {"tokenizer": "one"}}]
    changes = {"arm": arms, "claim": [], "seeds": [0], "metrics": {"PSNR": "evaluate_tokenizer/psnr"}}
    found = []
    for rate in (1e-3, 2e-3):
        arms[0]["set"] = {"stage.train_tokenizer.optimizer.learning_rate": rate}
        study_file(**changes)
        assert "two-seed0 begun ? of 1 waits for one-seed0" in _planned() or not found
        conducted()
        assert "left: 0 jobs" in _planned()
        (psnr,) = read_study(Path("runs/s")).metrics
        assert psnr.arms["one"].mean == psnr.arms["two"].mean
        found.append(psnr.arms["two"].mean)
    assert len(set(found)) == 2
    shutil.rmtree(next(Path("runs/s/one-seed0/artifacts").glob("tokenizer-*")))
    assert f"{found[-1]:.4g}" in conducted("--show")  # what one job lacks does not hide the others


def _planned() -> str:
    return " ".join(conducted("--dry-run").split())


def _until_it_says(pattern: str, number: int, code: int) -> None:
    """Starts the study, and sends it a signal once it has printed a line."""
    process = subprocess.Popen(
        [*COMMAND, "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if re.search(pattern, line):
                break
        process.send_signal(number)
        said.append(process.communicate(timeout=300)[0])
        assert process.returncode == code, "".join(said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def test_a_failing_arm_is_named_with_its_reason_and_does_not_end_the_others(study_file):
    arms = [{"name": "one"}, {"name": "bad", "set": {"stage.train_tokenizer.optimizer.learning_rate": 1e30}}]
    study_file(arm=arms, claim=[], seeds=[0], metrics=None)
    printed = conducted(code=1)
    assert "error: bad-seed0 failed: " in printed
    assert "not finite" in printed
    assert re.search(r"bad-seed0 failed: .*; hint: .*lower the learning rate", printed), "what the job said to do"
    record = read_study(Path("runs/s"))
    assert {run.folder: run.state for run in record.runs} == {"one-seed0": "done", "bad-seed0": "failed"}
    assert {metric.label for metric in record.metrics} >= {"evaluate_tokenizer/psnr"}
    assert not any("bad" in metric.arms for metric in record.metrics)
    assert "bad-seed0 failed: " in conducted("--show")
    arms[1]["set"]["stage.train_tokenizer.optimizer.learning_rate"] = 1e-3
    study_file(arm=arms, claim=[], seeds=[0], metrics=None)
    assert "failed" not in conducted("--show")  # that was another arm


def test_a_failing_arm_that_loads_from_another_keeps_its_reason_until_it_is_another(study_file):
    loading = {"name": "two", "stages": ["evaluate_tokenizer"], "load": {"tokenizer": "one"}}
    study_file(arm=[{"name": "one"}, loading], claim=[], seeds=[0], metrics=None)
    Path("runs/s/two-seed0").mkdir(parents=True)
    Path("runs/s/two-seed0/mine.txt").write_text("mine")
    Path("runs/s/recipes").mkdir()
    assert "two-seed0 failed: " in conducted(code=1)
    assert "two-seed0 failed: " in conducted("--show")
    study_file(arm=[{"name": "one"}, {**loading, "set": {"run.precision": "no"}}], claim=[], seeds=[0], metrics=None)
    assert "failed" not in conducted("--show")


def test_a_damaged_record_is_set_aside_and_said(study_file):
    study_file(arm=[{"name": "one"}], claim=[], seeds=[0], metrics=None)
    conducted()
    Path("runs/s/study.json").write_text("{")
    assert "runs/s/study.json cannot be read" in (said := conducted())
    assert "damaged-study.json" in said
    assert Path("runs/s/damaged-study.json").read_text() == "{"
    assert read_study(Path("runs/s")).missing == []
    assert "cannot be read" not in conducted()


@pytest.mark.parametrize("other", ["--dry-run", "--show"])
def test_jobs_are_refused_where_nothing_runs(study_file, command, other):
    study_file()
    code, _, errors = command("study", "s.toml", other, "--jobs", "2")
    assert code == 2
    assert "leave out --jobs" in errors


def test_a_dry_run_names_each_run_that_a_job_takes_stages_of_or_waits_for_once(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, _ = command("study", "transfer", "--dry-run")
    assert code == 0
    planned = " ".join(output.split())
    assert "gpt-seed1 new 0 of 7 train_tokenizer, evaluate_tokenizer, tokenize of rar-seed1 gpt-after" in planned
    assert "rar-after-seed1 new 0 of 2 waits for rar-seed1 rar-after-control" in planned
    assert "gpt-after-seed1 new 0 of 2 waits for rar-seed1; waits for gpt-seed1 gpt-after-control" in planned


def test_a_dry_run_and_show_print_what_is_done_and_run_nothing(study_file, command):
    study_file()
    code, output, _ = command("study", "s.toml", "--dry-run")
    assert code == 0
    assert [line.split()[:2] for line in output.splitlines()[1:3]] == [["one-seed0", "new"], ["two-seed0", "new"]]
    assert "train_tokenizer of one-seed0" in output
    assert "left: 6 jobs in 9 parts" in output
    assert "note: " not in output
    study_file(seeds=[0, 1])
    assert "note: no claim can be decided: a verdict needs at least 3 seeds, and this has 2" in command(
        "study", "s.toml", "--dry-run"
    )[1].replace("\n", " ")
    study_file()
    code, output, _ = command("study", "s.toml", "--show", "--json")
    assert code == 0
    assert {claim["verdict"] for claim in json.loads(output)["claims"]} == {"undecided"}
    assert not Path("runs").exists()


def test_a_study_does_not_take_the_folder_of_a_run_or_of_another_command(study_file, refused):
    from filelock import FileLock

    study_file()
    Path("runs/s").mkdir(parents=True)
    with FileLock("runs/s/.lock"):
        assert "another command conducts this study" in refused("study", "s.toml")
    Path("runs/s/run.json").write_text("{}")
    assert "this is the folder of a run" in refused("study", "s.toml")
    Path("runs/s/run.json").unlink()
    Path("runs/s/study.md").write_text("notes of mine")
    assert "this folder holds other files: study.md" in refused("study", "s.toml")
    assert Path("runs/s/study.md").read_text() == "notes of mine"


def test_a_study_does_not_take_the_folder_of_another_study_of_its_name(study_file, refused, command, tmp_path):
    study_file(seeds=[0])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "s.toml").write_text(Path("s.toml").read_text() + "# another one\n")
    (tmp_path / "other" / "r.toml").write_text(Path("r.toml").read_text())
    record = StudyRecord(
        name="s", file=str(tmp_path / "other" / "s.toml"), quick=False, recipe="r.toml", seeds=[0], base="one",
        fingerprint="f", written="2026-01-01", arms=[], runs=[], metrics=[], claims=[],
    )  # fmt: skip
    Path("runs/s").mkdir(parents=True)
    write_study(Path("runs/s"), record)
    for options in ([], ["--show"], ["--dry-run"]):
        said = refused("study", "s.toml", *options)
        assert "this folder holds the results of" in said
        assert "give the study another name" in said
    (tmp_path / "other" / "s.toml").write_text(Path("s.toml").read_text())  # a copy is the same study
    assert command("study", "s.toml", "--show")[0] == 0
    (tmp_path / "other" / "s.toml").unlink()  # it was moved
    assert command("study", "s.toml", "--show")[0] == 0
    write_study(Path("runs/s"), attrs.evolve(record, quick=True))
    assert "run with --quick" in refused("study", "s.toml")


def test_options_that_exclude_each_other_and_a_folder_that_is_not_there_are_said(study_file, command):
    study_file(seeds=[0])
    for option in ("--show", "--json"):
        code, _, errors = command("study", "s.toml", "--dry-run", option)
        assert code == 2
        assert f"leave out {option}" in errors
    code, _, errors = command("study", "s.toml", "--show", "--out", "nowhere")
    assert code == 0
    assert "there is no folder nowhere/s" in errors


def test_a_run_whose_record_is_damaged_does_not_hide_the_others(study_file, command):
    study_file(seeds=[0])
    assert command("study", "s.toml", "--jobs", "1")[0] == 0
    for file in ("run.json", ".run.json.copy"):
        Path("runs/s/two-seed0", file).write_text("{")
    code, output, _ = command("study", "s.toml", "--show")
    assert code == 0
    assert "not finished: two-seed0" in output
    assert "one" in output


def test_a_folder_without_a_study_and_a_damaged_record_are_one_message(tmp_path):
    with pytest.raises(RobustokError, match="this is not the folder of a study"):
        read_study(tmp_path)
    (tmp_path / STUDY_FILE).write_text('{"name": 3}')
    with pytest.raises(RobustokError, match=r"study\.json"):
        read_study(tmp_path)


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_study_is_conducted_where_file_locks_do_not_work(number, study_file, command, monkeypatch):
    study_file(seeds=[0])
    without_locks(monkeypatch, number)
    monkeypatch.setattr(Jobs, "run", lambda *_: None)  # its jobs are processes of their own
    code, output, errors = command("study", "s.toml")
    assert "another command" not in output + errors
    assert " ".join(output.split()).count("note: runs/s: file locks do not work here") == 1
    assert Path("runs/s", STUDY_FILE).is_file()
    assert code == 1
    assert "not finished: one-seed0, two-seed0" in errors


def test_a_run_that_ended_with_other_fingerprints_than_were_planned_is_said(study_file, registry, command):
    """As after an edit of a plugin while the study ran: its results are not those that were asked for."""
    study = read_study_file(str(study_file(arm=[{"name": "one"}], claim=[], seeds=[0])), registry)
    (job,) = make_plan(study, Path("runs/s"), registry).jobs
    job = attrs.evolve(job, stages=dict.fromkeys(job.stages, "of other code"))
    plan = Plan(jobs=[job], tasks=[Task(job=job, until=None, after=[])])
    said: list[str] = []
    (run,) = conduct(study, plan, Path("runs/s"), jobs=1, registry=registry, say=said.append).runs
    assert (run.state, run.results) == ("failed", {})
    assert "its code, data or precision is another than when the study began" in run.problem
    assert f"one-seed0: {run.problem}" in said
    assert command("study", "s.toml")[0] == 0
    assert [run.state for run in read_study(Path("runs/s")).runs] == ["done"]
