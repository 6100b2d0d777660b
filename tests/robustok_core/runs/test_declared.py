"""A stage reads and makes only what its class declares: its fingerprint covers nothing else."""

from __future__ import annotations

import pytest
from attrs import frozen

from breaches import caught
from project import Project, recipe_of, registry_with
from robustok_core import RobustokError, Stage
from robustok_core.kinds.boundary import BrokenPromise
from robustok_core.runs.promises import TokenizerPromise

REFUSED = "names neither in `uses` nor in `may_use`"


@frozen(kw_only=True)
class NoOptions:
    """No options."""


class Theirs(Stage):
    """A stage without tables and artifacts."""

    Config = NoOptions

    def __init__(self, config):
        self.config = config

    def run(self, context):
        return {"done": 1.0}


def running(act, **declared):
    """A stage that does this with its context while it runs."""

    def run(self, context):
        act(context)
        return {}

    return type("Wrong", (Theirs,), {"run": run, **declared})


def checking(act, **declared):
    """A stage that does this with its context before the run begins."""
    return type("Wrong", (Theirs,), {"check": lambda self, context: act(context), **declared})


def project_with(trained, out) -> Project:
    """A recipe that has all tables and loads a tokenizer, and whose only stage is of a third party."""
    stages = [{"use": "theirs"}, {"use": "evaluate_tokenizer", "metrics": {}}]
    table = recipe_of(["train_tokenizer", "train_generator"], load={"tokenizer": trained.folder})
    return Project.of(table | {"stage": stages}, out)


def broken(project: Project, stage: type[Stage]) -> BrokenPromise:
    with pytest.raises(BrokenPromise) as found:
        project.run(registry=registry_with(stage={"theirs": stage}))
    return found.value


def make(context, name="tokenizer"):
    with context.making(name):
        pass


TABLES = {
    "dataset": (lambda context: context.dataset(), "data"),
    "spec": (lambda context: context.spec("perturbation"), "perturbation"),
    "has": (lambda context: context.has("perturbation"), "perturbation"),
    "build": (lambda context: context.build("tokenizer"), "tokenizer"),
    "sketch": (lambda context: context.sketch("tokenizer"), "tokenizer"),
    "part": (lambda context: context.part("one").spec("generator"), "generator"),
}


@pytest.mark.parametrize("when", [checking, running])
@pytest.mark.parametrize(("act", "table"), TABLES.values(), ids=TABLES)
def test_a_table_that_is_not_declared_is_refused_however_it_is_read(trained, tmp_path, when, act, table):
    error = broken(project_with(trained, tmp_path), when(act))
    assert error.what == f"stage 'theirs' reads the table [{table}], which its class {REFUSED}"
    assert f"add {table!r} to `uses`, or to `may_use`" in error.hint
    assert error.where.endswith(".Wrong"), "the class"


@pytest.mark.parametrize("declared", ["uses", "may_use"])
def test_a_declared_table_is_read(trained, tmp_path, declared):
    def act(context):
        assert context.has("data")
        assert len(context.dataset().train) > 0
        assert context.sketch("tokenizer").space == context.build("tokenizer").space

    stage = running(act, **{declared: ("data", "tokenizer")})
    project_with(trained, tmp_path).run(registry=registry_with(stage={"theirs": stage}))


def test_a_change_of_a_declared_table_runs_the_stage_again_and_of_another_one_does_not(trained, tmp_path):
    runs = []
    stage = running(lambda context: runs.append(context.spec("perturbation").config.beta), may_use=("perturbation",))
    project, registry = project_with(trained, tmp_path), registry_with(stage={"theirs": stage})
    project.run(registry=registry)
    project.table["generator"]["width"] = 24
    project.run(registry=registry)
    project.table["perturbation"]["beta"] = 0.5
    project.run(registry=registry)
    assert runs == [0.25, 0.5]


def test_an_optional_table_that_the_recipe_leaves_out_is_named_when_it_is_read(trained, tmp_path):
    project = project_with(trained, tmp_path)
    del project.table["generator"]
    registry = registry_with(
        stage={"theirs": running(lambda context: context.build("generator"), may_use=("generator",))}
    )
    with pytest.raises(RobustokError, match=r"stage 'theirs' needs a table \[generator\]"):
        project.run(registry=registry)


@pytest.mark.parametrize(
    ("stage", "what", "hint"),
    [
        (
            running(lambda context: context.spec("pertubation"), uses=("data",)),
            "asks for a table [pertubation], which no recipe has",
            "did you mean 'perturbation'?",
        ),
        (
            running(lambda context: context.inputs["tokenzier"], needs=("tokenizer",)),
            "reads the artifact 'tokenzier', which its class does not name in `needs`",
            "did you mean 'tokenizer'? Else add 'tokenzier' to `needs`",
        ),
        (
            running(lambda context: context.load("tokenizer")),
            "reads the artifact 'tokenizer', which its class does not name in `needs`",
            "add 'tokenizer' to `needs`",
        ),
        (
            checking(lambda context: context.promise("tokenzier", TokenizerPromise), needs=("tokenizer",)),
            "reads the artifact 'tokenzier', which its class does not name in `needs`",
            "did you mean 'tokenizer'?",
        ),
        (
            checking(lambda context: context.inputs["tokenizer"], needs=("tokenizer",)),
            "reads the files of 'tokenizer' before the run begins",
            "files in `run` only",
        ),
        (
            running(lambda context: make(context, "prboe"), makes=("probe",)),
            "makes the artifact 'prboe', which its class does not name in `makes`",
            "did you mean 'probe'? Else add 'prboe' to `makes`",
        ),
        (
            running(make),
            "makes the artifact 'tokenizer', which its class does not name in `makes`",
            "add 'tokenizer' to `makes`",
        ),
        (
            checking(lambda context: make(context, "probe"), makes=("probe",)),
            "makes the artifact 'probe' before the run begins",
            "make it in `run` only",
        ),
    ],
)
def test_a_misspelt_or_undeclared_name_is_refused_with_what_was_meant(trained, tmp_path, stage, what, hint):
    project = project_with(trained, tmp_path)
    error = broken(project, stage)
    assert error.what == f"stage 'theirs' {what}"
    assert hint in error.hint
    assert not list(project.folder.glob("artifacts/*")), "nothing is made under the wrong name"


@pytest.mark.parametrize(
    ("needs", "hint"),
    [
        (("tokenzier",), "no known stage makes it; did you mean 'tokenizer'? Then mend `needs` of the stage's class"),
        (("weather",), 'no known stage makes it, or [load] weather = "runs/NAME"'),
        (("decoders",), "put stage 'post_train' before it, or [load] decoders"),
    ],
)
def test_a_misspelt_need_is_reported_with_what_was_meant(trained, tmp_path, needs, hint):
    message = project_with(trained, tmp_path).refusal(
        registry=registry_with(stage={"theirs": type("Wrong", (Theirs,), {"needs": needs})})
    )
    assert f"stage 'theirs' needs the artifact {needs[0]!r}, which no stage before it makes" in message
    assert hint in message


def test_a_misspelt_artifact_to_load_is_reported_with_what_was_meant(trained, tmp_path):
    message = project_with(trained, tmp_path)
    message.table["load"] = {"tokenzier": str(trained.folder)}
    refusal = message.refusal(registry=registry_with(stage={"theirs": Theirs}))
    assert "load.tokenzier: no stage reads it (did you mean 'tokenizer'? Else remove this entry of [load])" in refusal


def test_the_check_for_third_parties_finds_it_in_a_recipe():
    table = recipe_of()
    table["stage"] = [{"use": "Wrong"}]
    words = f"stage 'Wrong' reads the table [data], which its class {REFUSED}"
    caught("stage", running(lambda context: context.dataset()), words, recipe=table)
