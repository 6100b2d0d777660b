"""`robustok plugins` as a user meets it."""

from __future__ import annotations

import pytest

from robustok_commands.list_plugins import _show


@pytest.mark.parametrize(("kind", "name", "shown"), [("generator", "known_codes", True), ("metric", "psnr", False)])
def test_sampler_options_are_listed(kind, name, shown, with_known_codes, capsys):
    _show(with_known_codes, kind, name)
    assert ("options of its sampler" in capsys.readouterr().out) == shown


def test_a_generator_without_sampler_options_lists_none(with_known_codes, monkeypatch, capsys):
    generator = with_known_codes.find("generator", "known_codes")
    monkeypatch.delattr(generator, "Sampling")
    _show(with_known_codes, "generator", "known_codes")
    assert "options of its sampler" not in capsys.readouterr().out
