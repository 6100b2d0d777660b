"""Which values of a recipe are marked as chosen."""

from __future__ import annotations

from project import recipe_of
from robustok_core import Recipe
from robustok_report.defaults import REQUIRED, values_of


def chosen(registry, **changes) -> dict[str, tuple[str, str]]:
    recipe = Recipe.from_table(recipe_of(**changes)).resolve(registry)
    return {value.key: (value.text, value.default) for value in values_of(recipe) if value.differs}


def test_a_value_that_equals_its_default_is_not_marked(registry):
    assert "perturbation.alpha" not in chosen(registry, perturbation={"alpha": 1.0})


def test_a_value_that_differs_stands_beside_its_default(registry):
    found = chosen(registry, perturbation={"alpha": 0.5})
    assert found["perturbation.alpha"] == ("0.5", "1.0")


def test_what_has_no_default_is_marked(registry):
    found = chosen(registry)
    assert found["perturbation.use"] == ("top_delta", REQUIRED)
    assert found["stage.train_tokenizer.epochs"][1] == REQUIRED


def test_an_option_within_a_component_is_compared_with_the_default_of_the_option_that_holds_it(registry):
    """`pfid` has a default network; naming the same one chooses nothing, naming another one does."""
    same = {"use": "pfid", "features": {"use": "efficientnet_lite0"}}
    other = {"use": "pfid", "features": {"use": "fashion_classifier"}}
    stage = {"use": "evaluate_tokenizer", "metrics": {"same": same, "other": other}}
    found = chosen(registry, stages=("train_tokenizer", stage))
    assert "stage.evaluate_tokenizer.metrics.same.features.use" not in found
    assert found["stage.evaluate_tokenizer.metrics.other.features.use"][0] == "fashion_classifier"
