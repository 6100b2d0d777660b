"""The files of a tiny study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from project import recipe_of
from studies import EVALUATION, study_table


@pytest.fixture
def study_file(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Writes r.toml and s.toml, a study of it, with keys of the study changed."""
    monkeypatch.chdir(tmp_path)

    def write(name: str = "s.toml", **changes: Any) -> Path:
        (tmp_path / "r.toml").write_text(tomli_w.dumps(recipe_of(["train_tokenizer", EVALUATION])))
        (tmp_path / name).write_text(tomli_w.dumps(study_table(**changes)))
        return Path(name)

    return write
