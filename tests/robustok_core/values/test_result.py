"""A result and its table."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustok_core import Result, RobustokError
from robustok_core.runs.results import results_of
from robustok_core.values.result import add_results

counts = st.none() | st.integers(0, 10**9)


@given(
    st.floats(allow_nan=False),
    st.none() | st.booleans(),
    counts,
    counts,
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False) | st.text(max_size=5), max_size=3),
)
def test_a_result_survives_json(value, higher, images, reference, details):
    result = Result(value, higher_is_better=higher, num_images=images, num_reference=reference, details=details)
    assert results_of({"fid": json.loads(json.dumps(result.table()))}) == {"fid": result}


def test_a_table_leaves_out_what_is_unknown():
    assert Result(2.5).table() == {"value": 2.5}
    assert Result(2.5, higher_is_better=False, num_reference=0).table() == {
        "value": 2.5,
        "higher_is_better": False,
        "num_reference": 0,
    }


def test_a_bare_number_or_a_tensor_becomes_a_result_and_a_result_stays_itself():
    result = Result(1.0, higher_is_better=True)
    assert Result.of(result) is result
    assert Result.of(torch.tensor(1.5)) == Result(1.5)


@pytest.mark.parametrize("value", [3, "2.5", True, torch.ones(1, 1), np.float32(1.5), torch.tensor(2)], ids=repr)
def test_whatever_float_takes_is_one_number(value):
    assert Result(value) == Result(float(value))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.ones(3), "Tensor (3,) of torch.float32"),
        (np.ones((2, 3)), "ndarray (2, 3) of float64"),
        (torch.ones((), device="meta"), "Tensor () of torch.float32"),
        ([1.0, 2.0], "list [1.0, 2.0]"),
        ("many", "str 'many'"),
        (None, "NoneType None"),
        (10**400, "int 1"),
    ],
    ids=str,
)
def test_a_value_that_is_not_one_number_is_said(value, found):
    with pytest.raises(RobustokError, match=re.escape(f"a Result is one number, found {found}")):
        Result(value)


@pytest.mark.parametrize(
    "wrong", [{"num_images": -1}, {"num_images": 2.0}, {"higher_is_better": 1}, {"details": {"set": {1}}}], ids=str
)
def test_what_results_json_cannot_hold_is_refused_where_it_is_made(wrong):
    with pytest.raises((TypeError, ValueError)):
        Result(1.0, **wrong)


def test_a_result_whose_name_is_taken_gets_the_name_of_its_metric():
    results: dict[str, Result] = {}
    for metric, value in (("a", 1.0), ("b", 2.0), ("b", 3.0)):
        add_results(results, metric, {"psnr": Result(value)})
    assert {name: result.value for name, result in results.items()} == {"psnr": 1.0, "b_psnr": 2.0, "b_b_psnr": 3.0}
