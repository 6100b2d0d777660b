"""Sections that are made one by one, so that a fault in one costs no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from robustok_core.errors import RobustokError
from robustok_toolkit.report_parts import Section


def made_sections(makers: Mapping[str, Callable[[], Section | None]], missing: list[str]) -> list[Section]:
    """The sections that there are, in order.

    Args:
        makers: by name; None from one means that there is nothing to show.
        missing: gets a line for each section that lacks something, or fails: a long run must not be left without a
            report by a fault of ours.
    """
    found = []
    for name, make in makers.items():
        try:
            section = make()
        except RobustokError as error:
            missing.append(f"the section {name}: {error}")
        except Exception as error:
            logging.getLogger(__name__).debug("section %s", name, exc_info=True)
            missing.append(f"the section {name}, which failed: {type(error).__name__}: {error}")
        else:
            found += [section] if section is not None else []
    return found
