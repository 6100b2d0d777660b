"""Components that are named and not built yet, and their tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from robustok_core import RobustokError
from robustok_core.values.spec import Spec, plain, plain_options, shaping_options, wrong_name


@frozen(kw_only=True)
class Config:
    """Options."""

    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None
    part: Spec | None = None
    named: dict[str, Any] = field(factory=dict)


class Thing:
    """Holds what it was built with."""

    def __init__(self, config, *arguments, **named):
        self.built_with = (config, arguments, named)


def spec(**options: Any) -> Spec:
    return Spec(kind="thing", name="mine", factory=Thing, config=Config(**options))


def test_a_component_is_built_with_its_configuration_and_what_else_its_kind_needs():
    config = Config(limit=3)
    assert spec(limit=3).build(1, two=2).built_with == (config, (1,), {"two": 2})


def test_a_table_has_every_default_and_leaves_out_none():
    assert spec().table() == {"use": "mine", "sizes": [1, 2], "named": {}}


def test_components_within_a_component_are_tables_within_its_table():
    found = spec(part=spec(limit=3), named={"one": spec(sizes=())}).table()
    assert found["part"] == {"use": "mine", "sizes": [1, 2], "limit": 3, "named": {}}
    assert found["named"] == {"one": {"use": "mine", "sizes": [], "named": {}}}


def test_none_within_a_table_is_left_out():
    assert plain({"a": None, "b": (1, {"c": None})}) == {"b": [1, {}]}


@given(st.text(max_size=120))
def test_a_good_name_is_one_part_of_a_path_and_stays_itself(name):
    good = wrong_name(name) is None
    if good:
        assert 1 <= len(name) <= 100
        assert name.isascii()
        assert not set(name) & set("/\\\0\n ")
        assert name[0] not in ".-_"


@pytest.mark.parametrize("name", ["a", "Stage-1_of.2", "0", "x" * 100])
def test_names_of_letters_digits_dots_and_dashes_are_good(name):
    assert wrong_name(name) is None


@frozen(kw_only=True)
class Sampler:
    steps: int = 5
    execution: str = field(default="auto", metadata={"result": False})


@frozen(kw_only=True)
class StageOptions:
    batch: int = field(default=8, metadata={"result": False})
    sampler: Sampler = field(factory=Sampler)
    part: Any = None


def test_what_shapes_a_result_leaves_out_neutral_options_of_tables_but_not_of_components():
    """So that an option which a later version adds to a table changes no fingerprint."""
    part = Spec(kind="metric", name="part", config=Sampler(), factory=object)
    config = StageOptions(part=part)
    component = {"use": "part", "steps": 5, "execution": "auto"}
    assert shaping_options(config) == {"sampler": {"steps": 5}, "part": component}
    assert plain_options(config) == {"batch": 8, "sampler": {"steps": 5}, "part": component}
    assert shaping_options(StageOptions(sampler=Sampler(execution="eager"), part=part)) == shaping_options(config)


def network(read: Callable[[torch.Tensor], Any]) -> Spec:
    class Network(torch.nn.Module):
        """Reads its weights while it is built."""

        def __init__(self, config):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 3))
            self.read = read(self.weight)

    return Spec(kind="quantizer", name="mine", factory=Network, config=Config())


@pytest.mark.parametrize(
    "read",
    [
        lambda weight: float(weight.detach().norm()),
        lambda weight: weight.detach().numpy(),
        lambda weight: weight[weight > 0],
        lambda weight: weight + torch.from_numpy(np.ones((3, 3))),
    ],
    ids=["a value", "numpy", "a mask", "an array"],
)
def test_a_network_that_reads_values_while_it_is_built_is_told_that_there_are_none(read):
    network(read).build()
    with pytest.raises(RobustokError) as caught:
        network(read).sketch()
    assert caught.value.what.startswith("the quantizer 'mine' cannot be built on torch's meta device, without values (")
    assert caught.value.hint.startswith(
        "initialise with torch's functions, and read no values in `__init__`; this error"
    )
    assert "test_spec.py, line " in caught.value.hint
    assert isinstance(caught.value.__cause__, (RuntimeError, TypeError))


def test_another_mistake_that_speaks_of_meta_is_not_about_the_device():
    def options(size):
        return size

    with pytest.raises(TypeError, match="unexpected keyword argument 'meta'"):
        network(lambda weight: options(1, meta=2)).sketch()


def test_the_component_that_reads_values_is_named_and_not_the_one_that_builds_it():
    class Outer(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.inner = network(lambda weight: weight.tolist()).build()

    with pytest.raises(RobustokError, match="^the quantizer 'mine' cannot be built"):
        Spec(kind="tokenizer", name="outer", factory=Outer, config=Config()).sketch()


def test_an_error_that_is_the_same_on_every_device_stays_itself():
    with pytest.raises(TypeError, match="unsupported operand"):
        network(lambda weight: weight + None).sketch()
