"""`robustok plugins` as a user meets it."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from known_codes import KnownCodes
from project import registry_with
from robustok_commands.list_plugins import _entry, _list_plugins, _show
from robustok_core import Registry
from robustok_core.values.terminal import make_console


@pytest.fixture
def known() -> Registry:
    return registry_with(generator={"known_codes": KnownCodes})


@pytest.mark.parametrize(("kind", "name", "shown"), [("generator", "known_codes", True), ("metric", "psnr", False)])
def test_sampler_options_are_listed(kind, name, shown, known, capsys):
    _show(make_console(), _entry(known, kind, name))
    assert ("options of its sampler" in capsys.readouterr().out) == shown


def test_a_generator_without_sampler_options_lists_none(known, monkeypatch, capsys):
    monkeypatch.delattr(KnownCodes, "Sampling")
    _show(make_console(), _entry(known, "generator", "known_codes"))
    assert "options of its sampler" not in capsys.readouterr().out


def test_plugins_lists_every_component_by_kind_with_its_description_and_every_plugin_with_its_distribution(
    command, registry
):
    code, output, _ = command("plugins")
    assert code == 0
    components, packages = output.split("\nfrom\n")
    kinds = dict.fromkeys(entry.kind for entry in registry.entries())
    expected = [line for kind in kinds for line in (kind, *(f"  {name}" for name in registry.names(kind)))]
    lines = [line for line in components.splitlines() if line]
    assert [re.match(r" *\w+", line)[0] for line in lines] == expected
    assert all(re.fullmatch(r"  \w+ +.{20,}  \[\w+\]", line) for line in lines if line.startswith(" "))
    assert re.search(r"^  robustok_perturbations +robustok$", packages, re.MULTILINE)
    assert "not in use" not in output


def test_plugins_of_a_kind_are_listed_with_one_line_each(command, registry):
    code, output, _ = command("plugins", "metric")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == registry.names("metric")
    assert all(
        len(line.split(maxsplit=1)[1]) > 30 and line.endswith("[robustok_metrics]") for line in output.splitlines()
    )


def test_the_options_of_a_component_are_shown_with_type_default_and_meaning(command):
    code, output, _ = command("plugins", "stage", "train_tokenizer")
    assert code == 0
    assert "stage train_tokenizer, from robustok_stages" in output
    assert "  epochs (float, required): passes over the training images\n" in output
    assert "  log_every (int, default 20): steps between lines of metrics.jsonl\n" in output
    assert '  losses (a loss, default { reconstruction = { use = "reconstruction" } }): the terms of the loss' in output
    assert re.search(r"\n  optimizer \(table, .*\n      \w+ \(", output), "the options of a table are indented below it"


def test_every_option_of_every_component_is_shown_with_its_meaning(command, registry):
    for entry in registry.entries():
        code, output, _ = command("plugins", entry.kind, entry.name)
        assert code == 0
        options = output.split("\noptions:\n")[1].split("\n\noptions of its sampler (`sampling` in stages):\n")
        assert (len(options) == 2) == (entry.kind == "generator")
        options = [line for part in options for line in part.splitlines()]
        assert all(re.fullmatch(r" +\w+ \(.+\): .+", line) for line in options), (entry.kind, entry.name, options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["metrics"], "no kind is called 'metrics'\n  hint: did you mean 'metric'?"),
        (["psnr"], "no kind is called 'psnr'\n  hint: did you mean `robustok plugins metric psnr`?"),
        (["frechet"], "did you mean `robustok plugins metric frechet` or `robustok plugins sample_metric frechet`?"),
        (["robustok_quantizers"], "did you mean `robustok plugins quantizer fsq` or `robustok plugins quantizer ibq`"),
        (["metric", "pfd"], "no metric is called 'pfd'\n  hint: did you mean 'pfid'?"),
    ],
)
def test_a_misspelt_kind_or_name_gets_a_hint(refused, arguments, words):
    assert words in refused("plugins", *arguments)


def test_plugins_as_json_has_every_component_with_its_options(command, registry):
    table = json.loads(command("plugins", "--json")[1])
    assert [(one["kind"], one["name"]) for one in table["components"]] == [(e.kind, e.name) for e in registry.entries()]
    assert {plugin["name"] for plugin in table["plugins"]} == {plugin.name for plugin in registry.plugins}
    (one,) = json.loads(command("plugins", "perturbation", "top_delta", "--json")[1])["components"]
    (delta,) = [option for option in one["options"] if option["name"] == "delta"]
    assert delta["wanted"] == "int"
    assert delta["doc"]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_names_and_texts_are_in_columns(registry, width):
    printed = io.StringIO()
    _list_plugins(Console(file=printed, width=width, force_terminal=True, color_system=None), registry)
    components, packages = printed.getvalue().split("\nfrom\n")
    lines = [line for line in components.splitlines() if line.startswith("  ")]
    column = max(len(entry.name) for entry in registry.entries()) + 4
    assert all(len(line) <= width for line in lines)
    assert all(line[column - 1] == " " != line[column] for line in lines)
    assert packages.count("\n") == len(registry.plugins)
