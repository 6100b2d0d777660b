"""Tables become configurations, or a problem for each of their mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
import pytest
from attrs import field, frozen, validators
from hypothesis import given
from hypothesis import strategies as st

from robustok_core import Guidance, RobustokError
from robustok_core.errors import RunError
from robustok_core.recipe.limits import LARGEST_INTEGER
from robustok_core.recipe.structurer import Problem, Structurer, nested_config, type_name
from robustok_core.values.spec import Spec, component, components, sampler_options


@frozen(kw_only=True)
class Inner:
    """A table within a table."""

    rate: float = field(default=0.5, validator=[validators.ge(0), validators.le(1)], metadata={"doc": "a share"})


@frozen(kw_only=True)
class Options:
    """Options of every type that a recipe can hold."""

    MOVED: ClassVar[Mapping[str, str]] = {"speed": "it is now `rate` of the table `inner`"}

    epochs: float = field(metadata={"doc": "passes over the data"})
    steps: int = field(default=4, validator=validators.ge(1))
    name: str = "x"
    fast: bool = False
    norm: Literal["l1", "l2"] = "l1"
    limit: int | None = None
    betas: tuple[float, ...] = (0.9, 0.95)
    inner: Inner = field(factory=Inner)
    perhaps: Inner | None = None


@frozen(kw_only=True)
class Leaf:
    """A component's configuration."""

    size: int = 1


class Small:
    """A component."""

    Config = Leaf


@frozen(kw_only=True)
class Whole:
    """A configuration with other components."""

    part: Spec = component("part", doc="a part", default={"use": "small", "size": 7})
    spare: Spec | None = component("part", doc="a part that may be left out", optional=True)
    named: Mapping[str, Spec] = components("part", doc="parts by name", default={"one": {"use": "small"}})


@frozen(kw_only=True)
class Sampled:
    """A configuration with options of a sampler."""

    sampling: Any = sampler_options(doc="of the sampler")


def find(kind: str, name: str, path: Any) -> type | Problem:
    return Small if (kind, name) == ("part", "small") else Problem(path, f"no {kind} is called {name!r}")


def structured(cls: type, table: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    structurer = Structurer(find)
    return structurer.config(cls, table, ()), structurer.problems


def problem(cls: type, table: Mapping[str, Any]) -> Problem:
    """The one problem of a table, of which nothing can be made."""
    found, problems = structured(cls, table)
    assert found is None
    (only,) = problems
    return only


def good(cls: type, table: Mapping[str, Any]) -> Any:
    found, problems = structured(cls, table)
    assert problems == []
    return found


def test_what_a_table_leaves_out_has_its_default():
    assert good(Options, {"epochs": 1}) == Options(epochs=1.0)
    assert isinstance(good(Options, {"epochs": 1}).epochs, float)


def test_a_list_is_read_as_a_tuple_and_a_table_as_a_configuration():
    found = good(Options, {"epochs": 1, "betas": [0.5], "inner": {"rate": 1}, "perhaps": {}, "limit": 3})
    assert found == Options(epochs=1.0, betas=(0.5,), inner=Inner(rate=1.0), perhaps=Inner(), limit=3)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("steps", 2.0, "expected int, found float 2.0"),
        ("steps", True, "expected int, found bool True"),
        ("steps", "4", "expected int, found str '4'"),
        ("name", 3, "expected str, found int 3"),
        ("fast", 1, "expected bool (true or false), found int 1"),
        ("fast", "yes", "expected bool (true or false), found str 'yes'"),
        ("norm", "l3", "'l3' is not one of 'l1', 'l2'"),
        ("limit", "none", "expected int, found str 'none'"),
        ("betas", 0.9, "expected tuple[float, ...], found float 0.9"),
        ("inner", 0.5, "expected a table, found float 0.5"),
        ("perhaps", [], "expected a table, found list []"),
    ],
)
def test_a_value_of_another_type_is_one_problem_at_its_key(key, value, what):
    assert problem(Options, {"epochs": 1, key: value}) == Problem((key,), what)


def test_a_required_key_is_explained():
    assert problem(Options, {}) == Problem((), "the key 'epochs' is required", "passes over the data")


def test_an_unknown_key_gets_the_closest_known_one_as_a_hint():
    assert problem(Options, {"epochs": 1, "stpes": 4}) == Problem(
        ("stpes",), "unknown key 'stpes'", "did you mean 'steps'?"
    )


def test_a_key_that_is_like_no_other_gets_all_known_ones_as_a_hint():
    assert problem(Inner, {"zzz": 4}).hint == "known: rate"


def test_a_key_that_moved_says_where_it_is_now():
    found = problem(Options, {"epochs": 1, "speed": 4})
    assert found == Problem(("speed",), "unknown key 'speed'", "it is now `rate` of the table `inner`")


def test_a_value_out_of_range_is_explained_at_its_path():
    found = problem(Options, {"epochs": 1, "inner": {"rate": 1.5}})
    assert found.path == ("inner", "rate")
    assert found.what.startswith("1.5 is out of range: rate must be <= 1")
    assert found.hint == "a share"


def test_all_mistakes_are_collected_in_one_pass():
    table = {"epochs": "one", "stpes": 4, "inner": {"rate": 2.0, "rat": 1}, "norm": "l3"}
    found, problems = structured(Options, table)
    assert found is None
    paths = {("epochs",), ("stpes",), ("inner", "rate"), ("inner", "rat"), ("norm",)}
    assert {one.path for one in problems} == paths
    assert len(problems) == len(paths)


def test_options_that_do_not_go_together_are_a_problem_of_their_table():
    @frozen(kw_only=True)
    class Pair:
        low: int = 0
        high: int = 1

        def __attrs_post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low {self.low} is above high {self.high}")

    assert problem(Pair, {"low": 3}) == Problem((), "low 3 is above high 1")


def a_power_of_two(_: Any, __: Any, size: int) -> None:
    if size & (size - 1):
        raise RobustokError(f"{size} is no power of two", hint="choose 4 or 8")


@frozen(kw_only=True)
class Sizes:
    """Says itself what is wrong with its options."""

    low: int = 0
    high: int = 1
    size: int = field(default=4, validator=a_power_of_two)

    def __attrs_post_init__(self) -> None:
        if self.low < 0:
            raise RobustokError("low is negative", where="low", hint="use 0")
        if self.low > self.high:
            raise RobustokError(f"low {self.low} is above high {self.high}", where="sizes", hint="lower it")
        if self.high > 100:
            raise RunError("the disk is full")


def test_what_a_configuration_refuses_itself_is_a_problem_of_its_table_or_of_the_option_that_it_names():
    assert problem(Sizes, {"low": 3}) == Problem((), "sizes: low 3 is above high 1", "lower it")
    assert problem(Sizes, {"low": -3}) == Problem(("low",), "low is negative", "use 0")
    assert problem(Sizes, {"size": 6}) == Problem(("size",), "6 is no power of two", "choose 4 or 8")


def test_what_a_configuration_refuses_itself_hides_no_other_mistake():
    @frozen(kw_only=True)
    class Outer:
        sizes: Sizes = field(factory=Sizes)
        fast: bool = False

    _, problems = structured(Outer, {"sizes": {"low": 3}, "fast": 3})
    assert [one.path for one in problems] == [("sizes",), ("fast",)]


def test_a_failure_of_the_machine_while_a_configuration_is_checked_stays_one():
    with pytest.raises(RunError, match="the disk is full"):
        structured(Sizes, {"high": 101})


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"start": 0.2}, "start has no effect without 'scale'"),
        ({"schedule": "linear", "power": 2.0}, "schedule and power have no effect without 'scale'"),
    ],
)
def test_guidance_without_its_scale_is_asked_for_it(table, what):
    hint = "set scale: g, the final weight; 1 for no guidance"
    assert problem(Guidance, table) == Problem((), what, hint)


@pytest.mark.parametrize("table", [{}, {"schedule": "constant"}, {"scale": 1.0, "schedule": "linear", "start": 0.2}])
def test_guidance_is_switched_off_by_a_scale_of_1_whatever_else_is_set(table):
    assert not good(Guidance, table).active


def test_a_component_has_the_configuration_of_its_class():
    found = good(Whole, {"part": {"use": "small", "size": 3}})
    assert found.part == Spec(kind="part", name="small", factory=Small, config=Leaf(size=3))


def test_components_that_are_left_out_are_the_default_ones_and_optional_ones_are_none():
    found = good(Whole, {})
    assert found.part.config == Leaf(size=7)
    assert found.spare is None
    assert {name: spec.config for name, spec in found.named.items()} == {"one": Leaf()}


def test_named_components_replace_the_default_ones():
    found = good(Whole, {"named": {"two": {"use": "small"}, "three": {"use": "small", "size": 3}}})
    assert {name: spec.config for name, spec in found.named.items()} == {"two": Leaf(), "three": Leaf(size=3)}
    assert good(Whole, {"named": {}}).named == {}


@pytest.mark.parametrize(
    ("table", "path", "what"),
    [
        ({"part": 3}, ("part",), "expected a table with `use`, found int"),
        ({"part": {"size": 3}}, ("part",), 'this part needs `use = "NAME"`'),
        ({"part": {"use": 3}}, ("part",), 'this part needs `use = "NAME"`'),
        ({"part": {"use": "large"}}, ("part", "use"), "no part is called 'large'"),
        ({"part": {"use": "small", "size": "3"}}, ("part", "size"), "expected int, found str '3'"),
        ({"named": [1]}, ("named",), "expected a table of named part tables, found list"),
        ({"named": {"one": {"use": "large"}}}, ("named", "one", "use"), "no part is called 'large'"),
    ],
)
def test_a_mistake_in_a_component_is_one_problem_at_its_path(table, path, what):
    found = problem(Whole, table)
    assert (found.path, found.what) == (path, what)


def test_options_of_a_sampler_stay_a_table_until_the_generator_is_known():
    assert good(Sampled, {"sampling": {"anything": 1}}).sampling == {"anything": 1}
    assert problem(Sampled, {"sampling": 3}) == Problem(("sampling",), "expected a table, found int 3")


options = st.fixed_dictionaries(
    {"epochs": st.floats(0, 100) | st.integers(0, 100)},
    optional={
        "steps": st.integers(1, 10**9),
        "name": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        "fast": st.booleans(),
        "norm": st.sampled_from(["l1", "l2"]),
        "limit": st.integers(-LARGEST_INTEGER, LARGEST_INTEGER),
        "betas": st.lists(st.floats(0, 1), max_size=3),
        "inner": st.fixed_dictionaries({}, optional={"rate": st.floats(0, 1)}),
    },
)


@given(options)
def test_a_good_table_gives_its_own_values(table):
    found = attrs.asdict(good(Options, table))
    assert found["inner"].items() >= table.pop("inner", {}).items()
    assert list(found["betas"]) == list(table.pop("betas", found["betas"]))
    assert found.items() >= table.items()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([a.name for a in attrs.fields(Options)]) | st.text(max_size=5), anything))
def test_any_table_gives_a_configuration_or_problems_and_never_another_error(table):
    found, problems = structured(Options, table)
    assert (found is None) == bool(problems)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (int, "int"),
        (Inner, "table"),
        (Literal["l1", "l2"], "'l1' or 'l2'"),
        (int | None, "int or none"),
        (Inner | None, "table or none"),
        (tuple[float, ...], "tuple[float, ...]"),
    ],
)
def test_types_have_names_that_users_understand(wanted, text):
    assert type_name(wanted) == text


def test_a_nested_configuration_is_one_table_and_not_a_list_of_them():
    assert nested_config(Inner) is nested_config(Inner | None) is Inner
    assert nested_config(list[Inner]) is nested_config(dict[str, Inner]) is nested_config(int) is None
