"""The files of a new plugin: components of the example plugin under new names, and packaging for them.

The example plugin is part of the checkout and of the installed package, so the copied code is tested code.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from robustok_core.errors import RobustokError, did_you_mean
from robustok_core.recipe.registry import Registry


@frozen
class Example:
    """A component of the example plugin: its file, its class, and the kinds that it depends on."""

    file: str
    cls: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its registered name."""
        return self.file.removesuffix(".py")


EXAMPLES: Mapping[str, Example] = {
    "dataset": Example("stripes.py", "Stripes"),
    "tokenizer": Example("patches.py", "Patches"),
    "quantizer": Example("nearest.py", "Nearest"),
    "perturbation": Example("drop.py", "Drop"),
    "loss": Example("edges.py", "Edges"),
    "features": Example("average_pool.py", "AveragePool"),
    "metric": Example("mae.py", "MAE"),
    "sample_metric": Example("mean_distance.py", "MeanDistance"),
    "generator": Example("by_place.py", "ByPlace"),
    "post_trainer": Example("last_part.py", "LastPart"),
    "stage": Example("train_probe.py", "TrainProbe"),
    "importer": Example("patches_file.py", "PatchesFile", needs=("tokenizer", "quantizer")),
}
#: First-party replacements for example components whose kind the new plugin does not have.
_FIRST_PARTY = {
    '{"use": "nearest"}': '{"use": "vq", "codebook_size": 32, "width": 8}',
    '{"use": "average_pool"}': '{"use": "efficientnet_lite0"}',
}


def check_name(name: str) -> None:
    """Checks that a name can be that of a new Python package.

    Raises:
        RobustokError: if it is not a lower-case identifier, or a package of this name exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name) or keyword.iskeyword(name):
        proposal = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
        hint = "use lower-case letters, digits and _, and begin with a letter"
        fits = bool(re.fullmatch(r"[a-z][a-z0-9_]{0,49}", proposal)) and not keyword.iskeyword(proposal)
        hint = f"did you mean {proposal!r}? {hint}" if fits and proposal != name else hint
        raise RobustokError(f"{name!r} cannot be the name of a Python package", where="NAME", hint=hint)
    if name == "tests" or importlib.util.find_spec(name) is not None:
        raise RobustokError(f"a package {name!r} already exists", where="NAME", hint="choose another name")


def check_free(name: str, kinds: Sequence[str], registry: Registry) -> None:
    """Refuses a name that a component has already: the new one could not be used.

    Raises:
        RobustokError: if an installed plugin has such a component of one of the kinds.
    """
    for entry in registry.entries():
        if entry.name == name and entry.kind in kinds:
            what = f"there is a {entry.kind} {name!r} already, from {entry.plugin}"
            raise RobustokError(what, where="NAME", hint="choose another name")


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """The kinds and those that they depend on, without duplicates, in the order of `EXAMPLES`.

    Raises:
        RobustokError: if there is no such kind.
    """
    for kind in kinds:
        if kind not in EXAMPLES:
            raise RobustokError(f"no kind is called {kind!r}", where="--kind", hint=did_you_mean(kind, list(EXAMPLES)))
    wanted = {*kinds, *(needed for kind in kinds for needed in EXAMPLES[kind].needs)}
    return [kind for kind in EXAMPLES if kind in wanted]


def write_package(folder: Path, name: str, kinds: Sequence[str]) -> None:
    """Fills a folder with a package `name` that has a component of each kind, also named `name`."""
    files = {
        "pyproject.toml": _pyproject(name, kinds),
        "README.md": _readme(name, kinds),
        ".gitignore": "__pycache__/\n*.egg-info/\nruns/\n",
        f"{name}/__init__.py": f'"""Components for robustok: {", ".join(kinds)}."""\n',
        f"{name}/plugin.py": _plugin(name, kinds),
        "recipe.toml": _recipe(name, kinds),
        "tests/test_contracts.py": _tests(name, kinds),
        **{f"{name}/{kind}.py": _component(name, kind, kinds) for kind in kinds},
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def class_name(name: str, kind: str) -> str:
    """The class name for a kind: "FogPostTrainer"; a name that ends with its kind does not get it twice."""
    whole = name if f"_{name}".endswith(f"_{kind}") else f"{name}_{kind}"
    return "".join(part.capitalize() for part in whole.split("_"))


def _component(name: str, kind: str, kinds: Sequence[str]) -> str:
    """The example's file with the new plugin's names."""
    text = (_example_folder() / EXAMPLES[kind].file).read_text(encoding="utf-8")
    ours = {f'"{EXAMPLES[other].name}"': f'"{name}"' for other in kinds}
    ours |= {f"`{EXAMPLES[other].name}`": f"`{name}`" for other in kinds}
    for other in kinds:
        cls, new = EXAMPLES[other].cls, class_name(name, other)
        ours |= {cls: new, f"{cls}Config": f"{new}Config"}
    # In one pass: a name of ours may be an example's.
    pattern = "|".join(rf"(?<!\w){re.escape(old)}(?!\w)" for old in sorted(ours, key=len, reverse=True))
    text = re.sub(pattern, lambda match: ours[match.group()], text)
    for table, stand_in in _FIRST_PARTY.items():
        text = text.replace(table, stand_in)
    return text


def _example_folder() -> Path:
    package = Path(str(importlib.resources.files("robustok_commands")))
    bundled = package / "example"
    # An editable install has no copy inside the package, so the example is read from the checkout.
    checkout = package.parent.parent / "examples" / "third_party_plugin" / "robustok_example"
    return bundled if bundled.is_dir() else checkout


def _plugin(name: str, kinds: Sequence[str]) -> str:
    imports = sorted(f"from {name}.{kind} import {class_name(name, kind)}" for kind in kinds)
    calls = [f'    register("{kind}", "{name}", {class_name(name, kind)})' for kind in kinds]
    head = ['"""Registers the components with robustok."""', "", "from robustok_core import hookimpl", ""]
    return "\n".join([*head, *imports, "", "", "@hookimpl", "def robustok_register(register):", *calls, ""])


def _pyproject(name: str, kinds: Sequence[str]) -> str:
    return f"""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name.replace("_", "-")}"
version = "0.1.0"
description = "For robustok: {", ".join(kinds)}"
requires-python = ">=3.10"
dependencies = ["robustok"]
optional-dependencies = {{ test = ["pytest"] }}

# robustok finds plugins by this entry point: a name of your own, and the module with the hooks.
[project.entry-points.robustok]
{name} = "{name}.plugin"

[tool.hatch.build.targets.wheel]
only-include = ["{name}"]

[tool.pytest.ini_options]
pythonpath = ["."]  # so that the tests also run before the package is installed
testpaths = ["tests"]
"""


def _readme(name: str, kinds: Sequence[str]) -> str:
    rows = "\n".join(f"- `{name}/{kind}.py`: the {kind} `{name}`" for kind in kinds)
    return f"""# {name}

A plugin for robustok:

{rows}

Each is a small working component: replace it with your idea. `{name}/plugin.py` registers the components under the
names that recipes use.

```sh
pip install -e ".[test]"
python -m pytest             # checks that each does what its kind promises
robustok plugins             # lists all components
robustok plugins {kinds[0]} {name}
robustok run recipe.toml     # a toy run with these components
```
"""


def _tests(name: str, kinds: Sequence[str]) -> str:
    listed = "\n".join(f'    "{kind}",' for kind in kinds if kind != "importer")
    text = f'''"""Each component does what its kind promises."""

import pytest
from {name} import plugin
from robustok.testing import check_component
from robustok_core import load_registry

KINDS = [
{listed}
]


@pytest.fixture(scope="module")
def registry():
    """All installed plugins and this one, which may not be installed yet."""
    registry = load_registry()
    if all(state.name != "{name}" for state in registry.plugins):
        assert registry.add_plugin(plugin, "{name}").error is None
    return registry


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_does_what_its_kind_promises(kind, registry):
    check_component(kind, "{name}", registry=registry)
'''
    if "importer" in kinds:
        last = "from robustok_core import load_registry\n"
        text = text.replace(last, f"{last}from safetensors.torch import save_file\n")
        text += f'''

def test_the_importer_reads_what_it_writes(registry, tmp_path):
    tokenizer = registry.build("tokenizer", {{"use": "{name}"}})
    save_file(registry.build("importer", {{"use": "{name}"}}).export(tokenizer), tmp_path / "theirs.safetensors")
    check_component("importer", "{name}", registry=registry, file=tmp_path / "theirs.safetensors")
'''
    return text


def _recipe(name: str, kinds: Sequence[str]) -> str:
    import tomli_w

    header = [
        f"# What: a toy run with the components of {name}, which shows that they are found and work together.",
        "# Cost: about half a minute on one CPU core. Its images are poor: it trains on 80 images for 2 epochs.",
        "# Run: robustok run recipe.toml",
    ]
    return "\n".join([*header, "", tomli_w.dumps(_recipe_table(name, set(kinds)))])


def _recipe_table(name: str, kinds: set[str]) -> dict[str, Any]:
    def ours(kind: str, otherwise: dict[str, Any]) -> dict[str, Any]:
        return {"use": name} if kind in kinds else otherwise

    quantizer = ours("quantizer", {"use": "vq", "codebook_size": 32, "width": 8})
    conv: dict[str, Any] = {
        "image_size": 32,
        "channels": 8,
        "channel_multipliers": [1],
        "num_res_blocks": 1,
        "attention": False,
    }
    conv |= {"norm_groups": 4, "stem_patch": 4, "z_channels": 8}
    features = ours("features", {"use": "fashion_classifier"})
    losses = {"pixels": {"use": "reconstruction"}} | ({"ours": {"use": name}} if "loss" in kinds else {})
    metrics: dict[str, Any] = {"psnr": {"use": "psnr"}} | ({"ours": {"use": name}} if "metric" in kinds else {})
    metrics |= {"rfd": {"use": "frechet", "features": features}} if "features" in kinds else {}
    optimizer = {"learning_rate": 2e-3}
    table: dict[str, Any] = {
        "run": {"name": f"{name}_toy", "seed": 0},
        "data": ours("dataset", {"use": "fashion_mnist", "train_limit": 80, "validation_limit": 40}),
        "tokenizer": {**ours("tokenizer", {"use": "conv_vq", **conv}), "quantizer": quantizer},
        "perturbation": ours("perturbation", {"use": "top_delta", "beta": 0.25, "delta": 4}),
        "stage": [
            {"use": "train_tokenizer", "epochs": 2, "batch_size": 16, "optimizer": optimizer, "losses": losses},
            {"use": "evaluate_tokenizer", "pictures": 0, "metrics": metrics},
        ],
    }
    stage: dict[str, Any] = {"use": name, "epochs": 2, "batch_size": 16, "optimizer": optimizer}
    table["stage"] += [stage] if "stage" in kinds else []
    if not kinds & {"generator", "sample_metric", "post_trainer"}:
        return table
    table["generator"] = ours("generator", {"use": "maskgit", "width": 16, "depth": 1, "num_heads": 2})
    sample_metrics: dict[str, Any] = {}
    if "sample_metric" in kinds:
        sample_metrics["ours"] = {"use": name, "features": features}
    table["stage"] += [
        {"use": "tokenize"},
        {"use": "train_generator", "epochs": 2, "batch_size": 16, "optimizer": optimizer},
        {"use": "sample", "num_samples": 40},
        {"use": "evaluate_generator", "metrics": sample_metrics or {"fd": {"use": "frechet", "features": features}}},
    ]
    if "post_trainer" in kinds:
        table["post_trainer"] = {"use": name}
        post_train: dict[str, Any] = {"use": "post_train", "epochs": 1, "batch_size": 16, "optimizer": optimizer}
        post_train["losses"] = {"pixels": {"use": "reconstruction"}}
        compare: dict[str, Any] = {"use": "compare_decoders", "num_samples": 40, "guidance": {"scale": 1.0}}
        compare["metrics"] = sample_metrics or {"fd": {"use": "frechet", "features": features}}
        compare["tokenizer_metrics"] = {"psnr": {"use": "psnr"}}
        table["stage"] += [{"use": "make_pairs", "sigma": [0.9], "num_pairs": 32}, post_train, compare]
    return table
