"""Sections, and parts of a section, that are made one by one, so that a fault in one costs no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from robustok_core.errors import RobustokError
from robustok_toolkit.report_parts import Part, Section, Text


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


def made_parts(make: Callable[[], Sequence[Part]], what: str, missing: list[str]) -> list[Part]:
    """The parts of a section that `make` makes; if they lack something, a remark in their place.

    Args:
        what: the parts in words, "the samples". missing: gets a line if they cannot be shown.
    """
    try:
        return list(make())
    except RobustokError as error:
        missing.append(f"{what}: {error}")
        return [Text(f"{what[0].upper()}{what[1:]} cannot be shown: {error}", muted=True)]
