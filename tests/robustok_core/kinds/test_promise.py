"""A promise says nothing unless its class does."""

from __future__ import annotations

import pytest

from robustok_core import Registry, RobustokError
from robustok_core.kinds.promise import Promise


class Pairs(Promise):
    """A promise that cannot be read from files."""


def test_a_promise_without_content_has_no_description():
    assert Pairs().describe() == ""


def test_a_promise_that_cannot_be_read_from_files_says_so_and_names_the_folder(tmp_path):
    with pytest.raises(RobustokError, match="a Pairs cannot be read from files") as caught:
        Pairs.of_artifact(tmp_path, Registry())
    assert caught.value.where == str(tmp_path)
