"""A component that breaks a promise of its kind is caught by the check for third parties."""

from __future__ import annotations

import re

import pytest

from robustok.testing import check_component


def caught(kind: str, component: type, words: str, config=None, **parts) -> None:
    """Fails unless the check of the component says these words."""
    with pytest.raises(AssertionError, match=re.escape(words)):
        check_component(kind, component, config, **parts)
