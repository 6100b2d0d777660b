"""What can be set in each view: read from `--set`, as keys of a recipe are, and from the page's controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError, raise_all
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.source import Source, override
from robustok_core.recipe.structurer import Structurer
from robustok_core.recipe.validators import unit_interval
from robustok_core.values.spec import Spec, component

View = TypeVar("View")
#: Options that say how strong a perturbation is, and their symbols.
STRENGTHS: Mapping[str, str] = {"beta": "β", "alpha": "α", "delta": "δ", "tau": "τ"}


def _count(default: int, doc: str, *, most: int = 64) -> Any:
    return field(default=default, validator=[validators.ge(1), validators.le(most)], metadata={"doc": doc})


def _number(doc: str) -> Any:
    return field(default=0, validator=validators.ge(0), metadata={"doc": doc})


def _file(doc: str) -> Any:
    return field(default=None, metadata={"doc": doc})


@frozen(kw_only=True)
class Perturb:
    """Latents of images are perturbed as in training, and decoded."""

    image: int = _number("number of a validation image")
    file: str | None = _file("an image file, instead of a validation image")
    num_images: int = _count(1, "number of images: this one and the next ones of its class")
    seed: int = _number("seed of the perturbation")
    perturbation: Spec = component("perturbation", doc="table: the perturbation; default: the run's, with beta = 1")


@frozen(kw_only=True)
class Keep:
    """A generator samples latents that keep a share sigma of an image's, as post-training does."""

    image: int = _number("number of a validation image")
    file: str | None = _file("an image file, instead of a validation image")
    class_of_file: str = field(default="0", metadata={"doc": "class of a file's image, by number or name"})
    num_images: int = _count(1, "number of images: this one and the next ones of its class")
    sigma: float = field(default=0.9, validator=unit_interval, metadata={"doc": "share of the image that is kept"})
    seed: int = _number("seed of the samples")


@frozen(kw_only=True)
class Paint:
    """Tokens of one image are replaced by those of another."""

    image: int = _number("number of the validation image that is painted on")
    file: str | None = _file("an image file, instead of that")
    source: int = _number("number of the validation image whose tokens are taken")
    source_file: str | None = _file("an image file, instead of that")
    tokens: list[int] = field(factory=list, metadata={"doc": "numbers of the tokens that are taken"})


@frozen(kw_only=True)
class Neighbours:
    """One token of an image is replaced by each of the codewords nearest to its own."""

    image: int = _number("number of a validation image")
    file: str | None = _file("an image file, instead of a validation image")
    token: int = _number("number of the token, by rows")
    count: int = _count(12, "number of nearest codewords; the first is the token's own")


@frozen(kw_only=True)
class Sample:
    """Samples of a class."""

    class_: str | None = field(default=None, metadata={"doc": "class by number or name; default: all in turn"})
    count: int = _count(8, "number of samples")
    guidance: float = field(default=1.0, validator=validators.ge(0.0), metadata={"doc": "guidance scale; 1 for none"})
    seed: int = _number("seed of the samples")


#: What `--draw` takes; `robustok sample` draws samples.
VIEWS: Mapping[str, type] = {"perturb": Perturb, "keep": Keep, "paint": Paint, "neighbours": Neighbours}


def settings_of(
    view: type[View], changes: Sequence[str] | Mapping[str, Any], registry: Registry, perturbation: Mapping[str, Any]
) -> View:
    """The settings of a view.

    Args:
        view: its class. changes: values by dotted path, or as --set takes them.
        perturbation: the run's, which `changes` change.

    Raises:
        ProblemsError: all mistakes in the changes.
    """
    base = {"perturbation": dict(perturbation)} if view is Perturb else {}
    table = override(Source(base, {}), changes).table
    structurer = Structurer(registry.find)
    settings = structurer.config(view, table, ())
    raise_all(
        [RobustokError(p.what, where=f"--set {'.'.join(map(str, p.path))}", hint=p.hint) for p in structurer.problems]
    )
    return settings
