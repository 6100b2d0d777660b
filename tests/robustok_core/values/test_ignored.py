"""Options that another option leaves without effect are refused, in every component."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import attrs
import pytest
from attrs import field, frozen

from robustok_core import ProblemsError, Registry, load_registry
from robustok_core.runs.components import load_component
from robustok_core.values.ignored import changed_options, refuse_ignored
from robustok_core.values.spec import plain


@frozen(kw_only=True)
class Options:
    way: str = "short"
    steps: list[int] = field(factory=lambda: [1])
    length: float = 1.0

    def __attrs_post_init__(self) -> None:
        refuse_ignored(self, "steps", "length", unless=self.way == "long", needs='way = "long"')


def test_options_without_effect_are_named_together_with_what_gives_them_one():
    with pytest.raises(ValueError, match=r'^length = 2.0 has an effect only with way = "long": leave it out, or set'):
        Options(length=2.0)
    with pytest.raises(ValueError, match=r"^steps = \[2\] and length = 2.0 have an effect only .*: leave them out"):
        Options(steps=[2], length=2.0)


def test_defaults_are_accepted_everywhere_and_all_values_where_they_have_an_effect():
    assert list(changed_options(Options(steps=[1], length=1), "steps", "length", "way")) == []
    assert Options(way="long", steps=[2], length=2.0).length == 2.0


UNCHANGED = {"translation": 0.0, "colour": False, "cutout": 0.0}

#: A component's kind and table, and the options in it that its other options leave without effect.
IGNORED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("generator", {"use": "llamagen_gpt", "preset": "B", "positions": "learned"}, {"class_rope": "identity"}),
    ("generator", {"use": "flow_transformer", "preset": "B"}, {"qk_norm_eps": 1e-5}),
    ("loss", {"use": "perceptual"}, {"layers": [0]}),
    ("loss", {"use": "perceptual"}, {"features": {"use": "fashion_classifier"}}),
    ("loss", {"use": "perceptual"}, {"features": {"use": "efficientnet_lite0", "min_size": 96}}),
    ("loss", {"use": "perceptual", "network": "features"}, {"weights": "vgg.pth"}),
    ("loss", {"use": "adversarial", "patch": {}}, {"optimizer": {"schedule": "constant", "final_learning_rate": 1e-5}}),
    ("loss", {"use": "adversarial", "patch": {}}, {"augmentation": {**UNCHANGED, "probability": 0.5}}),
    ("metric", {"use": "ifid", "interpolation": "mask"}, {"weight": 0.3}),
    ("post_trainer", {"use": "decoder"}, {"guidance": {"scale": 2.0, "power": 1.5}}),
    ("post_trainer", {"use": "decoder"}, {"guidance": {"scale": 2.0, "guide_first": True}}),
    ("quantizer", {"use": "vq"}, {"ema_decay": 0.9}),
    ("quantizer", {"use": "vq"}, {"restart_after": 10}),
    ("quantizer", {"use": "vq", "codebook_update": "ema"}, {"codebook_weight": 0.5}),
    ("stage", {"use": "tokenize", "views": "flip"}, {"crop_ranges": [1.2]}),
    ("stage", {"use": "tokenize"}, {"crop_ranges": [1.2]}),
    ("tokenizer", {"use": "gigatok"}, {"semantic": {"weight": 0.2}}),
    ("tokenizer", {"use": "mae_tok", "rotary": "none"}, {"rotary_base": 5.0}),
    ("tokenizer", {"use": "rae", "statistics": "stat.pt"}, {"statistics_images": 10}),
    ("tokenizer", {"use": "titok", "output": "pixels"}, {"inner_codes": 512}),
    ("tokenizer", {"use": "titok", "output": "pixels"}, {"pixel_decoder": {"channels": 64}}),
    ("tokenizer", {"use": "vit_kl", "mask_high": 0.0}, {"mask_low": -0.2}),
    ("dataset", {"use": "huggingface", "path": "cats", "validation_split": "test"}, {"validation_share": 0.2}),
    ("dataset", {"use": "webdataset", "train": "a.tar", "validation": "b.tar"}, {"validation_share": 0.2}),
]


@pytest.mark.parametrize(("kind", "table", "ignored"), IGNORED)
def test_a_component_refuses_options_that_it_would_ignore_and_takes_its_defaults(
    registry: Registry, kind: str, table: dict[str, Any], ignored: dict[str, Any]
) -> None:
    spec = registry.spec(kind, table)
    assert registry.spec(kind, {"use": spec.name, **plain(spec.config)}) == spec, "as a run's recipe.toml has it"
    with pytest.raises(ProblemsError, match="an effect only with"):
        registry.spec(kind, {**table, **ignored})


def test_samplers_refuse_options_that_they_would_ignore(registry: Registry) -> None:
    tokens = registry.spec("generator", {"use": "rar", "preset": "B"}).factory.Sampling
    with pytest.raises(ValueError, match=r"top_k = 5 and top_p = 0.5 have an effect only with a temperature above 0"):
        tokens(temperature=0.0, top_k=5, top_p=0.5)
    assert attrs.evolve(tokens(top_k=5), temperature=0.5).top_k == 5


def test_what_exists_already_is_read_with_options_without_effect(trained, tmp_path, command):
    """A run and a component that were made before an option was found to have no effect."""
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    recipe = (run / "recipe.toml").read_text()
    assert recipe.count("restart_after = ") == 1
    old = re.sub(r"restart_after = \S+", "restart_after = 7", recipe)
    for name in ("recipe.toml", ".recipe.toml.copy"):
        (run / name).write_text(old)
    code, _, errors = command("check", run)
    assert (code, errors) == (0, "")
    code, _, errors = command("check", run / "recipe.toml")
    assert code == 2
    assert "restart_after = 7 has an effect only with a restart_threshold above 0" in errors
    (artifact,) = run.glob("artifacts/tokenizer-*")
    table = json.loads((artifact / "component.json").read_text())
    table["table"]["quantizer"]["restart_after"] = 7
    (artifact / "component.json").write_text(json.dumps(table))
    load_component(load_registry(), artifact)
