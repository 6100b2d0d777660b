"""Weights that are used with other code than that which trained them."""

from __future__ import annotations

import logging
import sys

import pytest

from project import Project, registry_with
from robustok_toolkit.trained_tokenizer import load_tokenizer

QUANTIZER = "from robustok_quantizers.vq import VQ\n\nclass Mine(VQ):\n    '''A quantizer of a plugin.'''\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "packages" / "robustok_mine"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(QUANTIZER)
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    sys.modules.pop("robustok_mine", None)


def test_weights_of_edited_plugin_code_are_used_with_one_note_that_names_the_package(package, tmp_path, caplog):
    registry = registry_with(quantizer={"mine": __import__("robustok_mine").Mine})
    project = Project(tmp_path / "runs", train_tokenizer={"epochs": 0.2})
    project.table["tokenizer"]["quantizer"]["use"] = "mine"
    project.run(registry=registry)
    caplog.set_level(logging.WARNING)
    load_tokenizer(project.folder, registry=registry)
    assert not caplog.messages
    (package / "__init__.py").write_text(QUANTIZER + "\n# edited\n")
    load_tokenizer(project.folder, registry=registry)
    (note,) = caplog.messages
    assert "the code of robustok_mine (" in note
    assert str(project.artifact("tokenizer")) in note
