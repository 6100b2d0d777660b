"""The codebook: what of a large one is shown."""

from __future__ import annotations

import pytest

from robustok_report.sections import codebook as section
from robustok_report.sections.codebook import codebook


def test_all_of_a_small_codebook_is_shown(as_reported):
    _, map_, usage = codebook(as_reported).parts
    assert (len(map_.names), map_.title) == (32, "Codewords, by t-SNE")
    assert (len(usage.heights), usage.title) == (32, "Usage of the codes")


def test_it_is_said_that_a_map_shows_some_of_the_codewords_and_a_bar_is_a_mean(as_reported, monkeypatch):
    monkeypatch.setattr(section, "_MOST_SHOWN", 20)
    monkeypatch.setattr(section, "_MOST_BARS", 10)
    _, map_, usage = codebook(as_reported).parts
    assert (len(map_.names), map_.title) == (20, "20 of the 32 codewords, by t-SNE")
    assert (len(usage.heights), usage.title) == (10, "Usage of the codes, means of 3 or 4 neighbouring ranks")
    assert sum(usage.heights[:2]) * 4 + sum(usage.heights[2:]) * 3 == pytest.approx(100)
