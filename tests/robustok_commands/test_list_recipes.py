"""`robustok recipes` as a user meets it."""

from __future__ import annotations

from robustok_core.recipe.source import bundled_recipes, bundled_studies


def test_every_bundled_recipe_is_listed_with_its_first_line(command):
    code, output, _ = command("recipes")
    assert code == 0
    listed = dict(line.split(maxsplit=1) for line in output.splitlines())
    bundled = bundled_recipes() | bundled_studies()
    assert set(listed) == set(bundled)
    for name, file in bundled.items():
        assert listed[name].removesuffix(" ...") in file.read_text().splitlines()[0]
    assert "RobusTok" in listed["imagenet256/robustok_tokenizer"]
