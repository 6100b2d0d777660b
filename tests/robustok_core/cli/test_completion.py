"""Shell completion, as bash asks for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("robustok eval", "evaluate"),
        ("robustok check --pres", "--preset"),
        ("robustok plugins perturb", "perturbation"),
        ("robustok run main_tr", "main_train"),
        ("robustok study cl", "claims"),
        ("robustok study study/cl", "study/claims"),
    ],
)
def test_commands_options_kinds_recipes_and_studies_are_completed(words, wanted):
    asked = {"_ROBUSTOK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "robustok_core"],
        check=False, capture_output=True, text=True, env={**os.environ, **asked},
    )  # fmt: skip
    assert f"plain,{wanted}" in done.stdout.splitlines(), done.stderr
