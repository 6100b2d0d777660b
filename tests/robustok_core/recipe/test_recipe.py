"""Recipes: reading them, and messages about mistakes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import tomli

from robustok_core import ProblemsError, Recipe, RobustokError, run
from robustok_core.recipe.source import bundled_recipes, parse_override
from robustok_core.runs.checking import check
from robustok_core.values.wording import short_text

GOOD = """
[run]
name = "r"
[data]
use = "fashion_mnist"
[tokenizer]
use = "conv_vq"
image_size = 32
channels = 8
norm_groups = 4
attention = false
channel_multipliers = [1, 1]
stem_patch = 4
quantizer = { use = "vq", codebook_size = 16, width = 4 }
[perturbation]
use = "top_delta"
beta = 0.5
delta = 3
[[stage]]
use = "train_tokenizer"
epochs = 1
batch_size = 8
[stage.losses]
pixels = { use = "reconstruction" }
[[stage]]
use = "evaluate_tokenizer"
limit = 10
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "r.toml") -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    return write


def problems(recipe: Path, registry, **kwargs) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        Recipe.load(recipe, **kwargs).resolve(registry)
    return [str(problem) for problem in caught.value.problems]


def test_a_good_recipe_resolves_with_every_default_written_out(write, registry):
    resolved = Recipe.load(write(GOOD)).resolve(registry)
    assert resolved.table()["perturbation"] == {
        "use": "top_delta", "beta": 0.5, "alpha": 1.0, "delta": 3,
        "neighbours": "codeword", "images": "random", "tokens": "exact",
    }  # fmt: skip
    assert [stage.name for stage in resolved.stages] == ["train_tokenizer", "evaluate_tokenizer"]
    assert resolved.table()["stage"][0]["optimizer"]["betas"] == [0.9, 0.95]


def test_the_resolved_recipe_is_a_recipe_that_resolves_to_itself(write, registry):
    once = Recipe.load(write(GOOD)).resolve(registry)
    twice = Recipe.load(write(once.toml(), "again.toml")).resolve(registry)
    assert once.table() == twice.table()


def test_all_mistakes_are_reported_in_one_pass_with_their_lines(write, registry):
    text = GOOD.replace("beta = 0.5", "beta = 1.5").replace("channels = 8", 'chanels = 8\nz_channels = "eight"')
    text = text.replace('use = "evaluate_tokenizer"', 'use = "evaluate_tokeniser"').replace("delta = 3", "delta = 2.5")
    message = problems(write(text), registry)
    lines = text.splitlines()

    def line_of(key: str) -> int:
        return next(number for number, line in enumerate(lines, start=1) if line.startswith(key))

    assert len(message) == 5
    for key, words in {
        "chanels": "unknown key 'chanels' (did you mean 'channels'?)",
        "z_channels": "tokenizer.z_channels: expected int, found str 'eight'",
        "beta": "perturbation.beta: 1.5 is out of range",
        "delta": "perturbation.delta: expected int, found float 2.5",
        'use = "evaluate_tokeniser"': "did you mean 'evaluate_tokenizer'?",
    }.items():
        assert any(f"r.toml:{line_of(key)}:" in one and words in one for one in message), (key, message)


def test_a_syntax_error_is_named_with_its_line(write, registry):
    with pytest.raises(RobustokError, match=r"r\.toml:3: not valid TOML"):
        Recipe.load(write('[run]\nname = "x"\nseed == 3\n'))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[perturbation]", "[pertubation]"), "unknown table 'pertubation' (did you mean 'perturbation'?)"),
        (('use = "top_delta"', 'beta2 = "top_delta"'), "this perturbation needs `use"),
        (("epochs = 1\n", ""), "the key 'epochs' is required"),
        (("epochs = 1\n", "epochs = true\n"), "expected float, found bool True"),
        (('use = "reconstruction"', 'use = "reconstruction", norm = "l3"'), "'l3'"),
        (('name = "r"', 'name = "a/b"'), "run.name"),
        (("limit = 10", 'name = "train_tokenizer"'), "two stages are called 'train_tokenizer'"),
        (('use = "evaluate_tokenizer"\n', ""), 'this stage needs `use = "NAME"`'),
        (('use = "evaluate_tokenizer"', 'use = "a b"'), "no stage is called 'a b'"),
    ],
)
def test_each_mistake_has_one_message(write, registry, change, words):
    message = problems(write(GOOD.replace(*change)), registry)
    assert len(message) == 1
    assert words in message[0]


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "..", ".hidden", "", "a b", "x\0", "x\n", "\x1b[31mred", "ä", "x" * 101]
)
@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("run", "run.name: a run cannot be called {!r}: a name starts"),
        ("stage", "stage.0.name: a stage cannot be called {!r}: a name starts"),
    ],
)
def test_a_name_that_is_not_a_valid_folder_name_is_refused(registry, table, words, name):
    recipe = tomli.loads(GOOD)
    (recipe["run"] if table == "run" else recipe["stage"][0])["name"] = name
    with pytest.raises(ProblemsError) as caught:
        Recipe.from_table(recipe).resolve(registry)
    message = [str(problem) for problem in caught.value.problems]
    refused = ("'x\\x00' holds a NUL character", words.replace("{!r}", short_text(name)))
    assert any(reason in one for one in message for reason in refused), message
    assert not any(character in one for one in message for character in "\0\x1b"), message


@pytest.mark.parametrize("name", [3, True, ["a"], {"a": 1}])
def test_a_name_must_be_a_string(registry, name):
    recipe = tomli.loads(GOOD)
    recipe["stage"][0]["name"] = recipe["run"]["name"] = name
    with pytest.raises(ProblemsError) as caught:
        Recipe.from_table(recipe).resolve(registry)
    kind, (of_run, of_stage) = type(name).__name__, map(str, caught.value.problems)
    assert of_run.startswith(f"recipe: run.name: expected str, found {kind} {name!r}")
    assert f".name: a stage cannot be called {name!r}: expected str, found {kind}" in of_stage


def test_a_long_valid_name_is_accepted(registry):
    recipe = tomli.loads(GOOD)
    recipe["run"]["name"] = recipe["stage"][0]["name"] = "Stage-1_of.2" + "x" * 88
    Recipe.from_table(recipe).resolve(registry)


def test_a_stage_without_its_input_names_the_stage_that_makes_it(write, registry):
    text = GOOD[: GOOD.index("[[stage]]")] + '[[stage]]\nuse = "evaluate_tokenizer"\n'
    message = problems(write(text), registry)
    assert len(message) == 1
    assert "needs the artifact 'tokenizer'" in message[0]
    assert "put stage 'train_tokenizer' before it" in message[0]


def test_changing_use_drops_the_keys_of_the_previous_component(write, registry):
    resolved = Recipe.load(write(GOOD), overrides={"perturbation.use": "none"}).resolve(registry)
    assert resolved.table()["perturbation"] == {"use": "none"}


def test_overrides_reach_stages_by_name_and_are_named_in_messages(write, registry):
    recipe = Recipe.load(write(GOOD), overrides={"stage.train_tokenizer.epochs": 2.5, "run.seed": 7})
    assert recipe.resolve(registry).stages[0].spec.config.epochs == 2.5
    message = problems(write(GOOD), registry, overrides={"perturbation.beta": 3})
    assert message[0].startswith("--set perturbation.beta: ")
    with pytest.raises(RobustokError, match="no stage is called 'train'"):
        Recipe.load(write(GOOD), overrides={"stage.train.epochs": 1})


def test_extends_merges_tables_and_stages_by_name_and_preserves_locations(write, registry):
    write(GOOD, "base.toml")
    child = write(
        'extends = "base.toml"\n[perturbation]\nbeta = 2.0\n[[stage]]\nuse = "train_tokenizer"\nbatch_size = 4\n',
        "c.toml",
    )
    message = problems(child, registry)
    assert len(message) == 1
    assert "c.toml:3:" in message[0]
    good = Recipe.load(child, overrides={"perturbation.beta": 1.0}).resolve(registry)
    training = good.stages[0].spec.config
    assert (training.batch_size, training.epochs) == (4, 1.0)
    assert len(good.stages) == 2


def test_a_recipe_that_extends_itself_is_refused(write):
    write('extends = "b.toml"\n', "a.toml")
    b = write('extends = "a.toml"\n', "b.toml")
    with pytest.raises(RobustokError, match="extends itself"):
        Recipe.load(b)


def test_bundled_recipes_are_found_by_name_and_misspelt_names_get_a_hint():
    assert "main_train" in bundled_recipes()
    with pytest.raises(RobustokError, match="did you mean 'main_train'"):
        Recipe.load("main_trian")


def test_overrides_are_read_as_toml_and_bare_words_as_strings():
    assert parse_override("a.b=[1, 2]") == ("a.b", [1, 2])
    assert parse_override("a=0.5") == ("a", 0.5)
    assert parse_override("perturbation.use=none") == ("perturbation.use", "none")
    with pytest.raises(RobustokError, match="KEY=VALUE"):
        parse_override("epochs 3")


def test_every_bundled_recipe_resolves(registry):
    for name, file in bundled_recipes().items():
        if "presets/" not in name:
            Recipe.load(file).resolve(registry)


def test_an_importer_of_another_kind_is_refused_before_anything_runs(registry, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    table = {
        "load": {"generator": {"path": str(tmp_path / "weights.pt"), "importer": {"use": "llamagen_vq"}}},
        "data": {"use": "fashion_mnist", "train_limit": 80, "validation_limit": 20},
        "tokenizer": {"use": "conv_vq", "image_size": 32},
        "stage": [
            {"use": "train_tokenizer", "epochs": 1, "batch_size": 16},
            {"use": "sample", "num_samples": 10},
        ],
    }
    with pytest.raises(RobustokError, match="the importer 'llamagen_vq' makes a tokenizer"):
        check(Recipe.from_table(table), registry=registry)


def loading(*stages: str, **load: str) -> Recipe:
    """A recipe of the given stages that loads artifacts."""
    table = {
        "load": load,
        "data": {"use": "fashion_mnist"},
        "tokenizer": {"use": "conv_vq", "image_size": 32},
        "post_trainer": {"use": "decoder"},
        "stage": [{"use": name, **({"epochs": 1, "batch_size": 16} if "train" in name else {})} for name in stages],
    }
    return Recipe.from_table(table)


def test_loading_an_artifact_that_a_stage_makes_before_it_is_read_is_refused(registry):
    with pytest.raises(ProblemsError) as caught:
        loading("train_tokenizer", "evaluate_tokenizer", tokenizer="runs/r").resolve(registry)
    (message,) = caught.value.problems
    assert message.what.startswith(
        "load.tokenizer: no stage reads it: stage 'train_tokenizer' makes a new tokenizer first"
    )
    assert message.hint == "remove that stage, or this entry of [load]"


def test_an_entry_of_load_that_no_stage_reads_is_refused(registry):
    with pytest.raises(ProblemsError) as caught:
        loading("evaluate_tokenizer", tokenizer="runs/r", generator="runs/r").resolve(registry)
    (problem,) = caught.value.problems
    assert problem.what == "load.generator: no stage reads it"


@pytest.mark.parametrize("stages", [["post_train"], ["evaluate_tokenizer", "train_tokenizer"], ["evaluate_tokenizer"]])
def test_a_loaded_artifact_that_a_stage_reads_may_be_made_again_by_that_stage_or_later(registry, stages):
    loads = {"tokenizer": "runs/r"} | ({"pairs": "runs/r"} if "post_train" in stages else {})
    assert set(loading(*stages, **loads).resolve(registry).load) == set(loads)


@pytest.mark.parametrize("entry", [3, True, []])
def test_an_entry_of_load_that_is_no_path_is_one_message(registry, entry):
    with pytest.raises(ProblemsError) as caught:
        loading("evaluate_tokenizer", tokenizer=entry).resolve(registry)
    (problem,) = caught.value.problems
    assert problem.what == f"load.tokenizer: expected a path or a table, found {type(entry).__name__} {entry!r}"


def test_a_string_is_not_a_list_of_its_letters(registry):
    table = {"stage": [{"use": "sample", "num_samples": 10, "classes": "bag"}], "load": {}}
    with pytest.raises(ProblemsError, match=r"stage.sample.classes: expected list.*, found str 'bag'"):
        Recipe.from_table(table).resolve(registry)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("run.name=2024", "--set 'run.name=\"2024\"'"),
        ("run.name=nan", "--set 'run.name=\"nan\"'"),
        ("run.name=true", "--set 'run.name=\"true\"'"),
        ("run.name=2024-01-31", "--set 'run.name=\"2024-01-31\"'"),
        ("stage.sample.name=3", "--set 'stage.sample.name=\"3\"'"),
        ("data.path=7", "--set 'data.path=\"7\"'"),
    ],
)
def test_a_text_that_toml_reads_as_something_else_gets_the_quotes_that_work(registry, change, text):
    with pytest.raises(RobustokError) as caught:
        Recipe.load("main_train", overrides=[change]).resolve(registry)
    assert f"a text in quotes: {text}" in str(caught.value)
    mended = shlex.split(text)[1]
    assert Recipe.load("main_train", overrides=[mended]).resolve(registry)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"run.sed": 1}, "--set run.sed: run.sed: unknown key 'sed' (did you mean 'seed'?)"),
        ({"rn.seed": 1}, "--set rn.seed: rn: unknown table 'rn' (did you mean 'run'?)"),
    ],
)
def test_a_change_of_a_key_that_is_not_there_is_refused_with_the_near_one(registry, overrides, words):
    with pytest.raises(RobustokError) as caught:
        Recipe.load("main_train", overrides=overrides).resolve(registry)
    assert words in str(caught.value)


def test_what_is_no_recipe_or_registry_is_one_message():
    with pytest.raises(RobustokError, match="registry: expected a Registry, found int 3"):
        run(Recipe.load("main_train"), registry=3)
    with pytest.raises(RobustokError, match="recipe: expected a Recipe, found str 'main_train'"):
        run("main_train")


@pytest.mark.parametrize("given", [None, 3, "run.seed=1", b"x", [3], [None], {3: 1}, Path("r.toml")])
def test_overrides_and_presets_are_lists_of_texts(given):
    for argument in ("overrides", "presets"):
        with pytest.raises(RobustokError, match=f"^{argument}: .* text"):
            Recipe.load("main_train", **{argument: given})
