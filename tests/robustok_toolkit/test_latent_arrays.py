"""Latents as arrays: invalid values are refused with their origin and a hint. See test_latent_files.py for files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustok_core.errors import RunError
from robustok_core.values.latents import Latents, LatentSpace
from robustok_toolkit.latent_arrays import code_type, from_array, to_array

DISCRETE = LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=50)
CONTINUOUS = LatentSpace(kind="continuous", num_tokens=4, width=3)


def vectors_with(number: float) -> Latents:
    """(2, 4, 3), all 1 except for one."""
    vectors = torch.ones(2, 4, 3)
    vectors[1, 3, 0] = number
    return Latents(vectors=vectors)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("maker", "hint"), [("generator", "lower guidance.scale"), ("encoder", "weights")])
def test_a_single_value_that_is_not_finite_is_refused_and_its_origin_is_named(number, maker, hint):
    with pytest.raises(RunError, match=f"^here: the {maker} returned vectors that are not finite .*{hint}"):
        to_array(vectors_with(number), CONTINUOUS, maker=maker, where="here")


def test_a_value_out_of_float16_range_is_refused_only_in_float16():
    assert to_array(vectors_with(-7e4), CONTINUOUS).min() == -7e4
    assert to_array(vectors_with(-65504.0), CONTINUOUS, dtype="float16").min() == -65504.0
    with pytest.raises(RunError, match=r'up to 70000, but float16 ends at 65504 \(set dtype = "float32"\)'):
        to_array(vectors_with(-7e4), CONTINUOUS, dtype="float16")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_vectors_have_the_given_dtype_and_codes_are_integers(dtype):
    assert to_array(vectors_with(0.5), CONTINUOUS, dtype=dtype).dtype == np.dtype(dtype)
    assert to_array(Latents(vectors=torch.empty(0, 4, 3)), CONTINUOUS, dtype=dtype).shape == (0, 4, 3)
    assert to_array(Latents(codes=torch.tensor([[0, 49, 1, 2]])), DISCRETE, dtype=dtype).dtype == np.uint16


@pytest.mark.parametrize(
    ("codebook_size", "dtype"),
    [(2**16, "uint16"), (2**16 + 1, "int32"), (2**31, "int32"), (2**31 + 1, "int64"), (2**62 - 1, "int64")],
)
def test_the_largest_code_comes_back(codebook_size, dtype):
    space = LatentSpace(kind="discrete", num_tokens=2, width=2, codebook_size=codebook_size)
    codes = torch.tensor([[0, codebook_size - 1]])
    array = to_array(Latents(codes=codes), space)
    assert array.dtype == code_type(codebook_size) == np.dtype(dtype)
    assert torch.equal(from_array(array, space, "here").codes, codes)
