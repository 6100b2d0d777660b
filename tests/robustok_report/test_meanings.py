from __future__ import annotations

import pytest

from robustok_report.meanings import meaning_of

NAMES = ["cmmd", "fdr6", "gsfid", "ifid", "mind", "rsfid"]
IN_FEATURES = ["coverage", "density", "fd_val", "fdr", "ifd", "ifd_mask", "md", "mmd"]
GAPS = ["gap", "gap_codes", "gap_decoder", "gap_reconstruction"]
EVERY = [*NAMES, *(f"{name}_dinov2" for name in IN_FEATURES), *(f"{gap}_gfid" for gap in GAPS)]


@pytest.mark.parametrize("name", EVERY)
def test_a_number_is_named_and_explained(name: str) -> None:
    meaning = meaning_of(name)
    assert meaning.what
    assert meaning.why
    assert "{" not in meaning.what


def test_names_that_begin_alike_have_meanings_of_their_own() -> None:
    assert len({meaning_of(f"{gap}_gfid").name for gap in GAPS}) == len(GAPS)
    assert len({meaning_of(name).name for name in ("kid", "mind", "md_x", "cmmd", "mmd_x", "gsfid", "gfid")}) == 7
