"""`robustok plugins` as a user meets it."""

from __future__ import annotations

import pytest

from robustok_commands.list_plugins import _show


@pytest.mark.parametrize(("kind", "name", "shown"), [("generator", "known_codes", True), ("metric", "psnr", False)])
def test_options_of_a_sampler_are_listed_where_there_are_some(kind, name, shown, known, capsys):
    _show(known, kind, name)
    assert ("options of its sampler" in capsys.readouterr().out) == shown


def test_a_generator_without_them_lists_none(known, monkeypatch, capsys):
    generator = known.find("generator", "known_codes")
    monkeypatch.delattr(generator, "Sampling")
    _show(known, "generator", "known_codes")
    assert "options of its sampler" not in capsys.readouterr().out
