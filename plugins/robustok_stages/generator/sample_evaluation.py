"""Compares samples with real images, once or repeatedly during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import SampleMetric
from robustok_core.kinds.stage import StageContext
from robustok_core.values.result import Result, add_results
from robustok_core.values.spec import Spec, all_specs
from robustok_stages.checks import check_each
from robustok_stages.costs import SketchedFeatures
from robustok_stages.networks import check_networks
from robustok_toolkit.array_files import array_names
from robustok_toolkit.feature_files import (
    LIMIT_HINT,
    limit_problem,
    open_features,
    require_no_statistics,
    statistics_in,
)
from robustok_toolkit.image_features import (
    ExtractedFeatures,
    Extraction,
    KnownNetworkFeatures,
    Networks,
    SharedFeatures,
    singular_note,
    sizes_problem,
)
from robustok_toolkit.image_files import outline_of, reference_moments, shown_size

DATA_SPLITS = ("validation", "train")
SIZES_HINT = "use a reference of that size; `robustok evaluate --mixed-sizes` compares sets of different sizes"


def reference_field() -> Any:
    """The option for the real images that samples are compared with."""
    return field(
        default="validation",
        metadata={"doc": '"validation" or "train" images of [data], or a path: an .npz file (ADM), a folder of images'},
    )


def limit_field() -> Any:
    """The option for the number of reference images."""
    return field(
        default=None,
        validator=validators.optional(validators.ge(2)),
        metadata={
            "doc": "number of reference images to use, class-balanced; default: all. It must be left out where a "
            "Fréchet distance takes the statistics of a file"
        },
    )


@frozen(kw_only=True)
class RealImages:
    """A set of real images, as far as it was looked at before a run.

    Attributes:
        name: "validation", "train" or a path.
        num_images: 0 for statistics alone; None if it is not here.
        size: height and width of the images, in pixels; None without images.
    """

    name: str
    num_images: int | None
    size: tuple[int, int] | None

    def limited(self, limit: int | None) -> int | None:
        """The number of images that are used with this limit; None if it is not known."""
        return None if self.num_images is None else min(self.num_images, limit or self.num_images)

    @property
    def file(self) -> Path | None:
        """The file or folder; None of a split."""
        return None if self.name in DATA_SPLITS else Path(self.name).expanduser()


def check_reference(context: StageContext, reference: str, *keys: str) -> RealImages:
    """Checks, before anything runs, that a reference exists, and that it holds images, or a file statistics.

    Args:
        reference: the value of this stage's option `keys`.

    Raises:
        RobustokError: if not, located at the option.
    """
    try:
        return _looked_at(context, reference)
    except RobustokError as error:
        raise context.located(RobustokError(str(error)), *keys) from error


def _looked_at(context: StageContext, name: str) -> RealImages:
    """Looks at a split, a file or a folder.

    Raises:
        RobustokError: if there is none of this name, or it can be seen that it cannot be read.
    """
    if name in DATA_SPLITS:
        if not context.has("data"):
            raise RobustokError(f"the reference {name!r} needs the table [data], which this recipe does not have")
        dataset = context.dataset()
        return RealImages(name=name, num_images=len(getattr(dataset, name)), size=(dataset.image_size,) * 2)
    path = Path(name).expanduser()
    if not path.exists():
        if context.may_be_absent(f"the reference {name}"):
            return RealImages(name=name, num_images=None, size=None)
        what = f"{name!r} is neither {' nor '.join(map(repr, DATA_SPLITS))} nor a file or folder"
        raise RobustokError(what)
    if path.is_file() and _has_statistics(path) and "arr_0" not in array_names(path):
        return RealImages(name=name, num_images=0, size=None)
    outline = outline_of(path)
    return RealImages(name=name, num_images=outline.num_images, size=outline.size)


def _has_statistics(file: Path) -> bool:
    """Whether a file has moments; raises RobustokError if they cannot be read."""
    pooled, _ = (reference_moments(file, suffix) for suffix in ("", "_s"))
    return pooled is not None


def check_picture_size(context: StageContext, reference: RealImages, image_size: int, *keys: str) -> None:
    """Checks, before anything runs, that the images of a reference have a size.

    Args:
        image_size: height and width of the samples. keys: this stage's option.

    Raises:
        RobustokError: if they are smaller or larger, located at the option.
    """
    if reference.size is not None and reference.size != (image_size, image_size):
        shown = shown_size(reference.size)
        what = f"the samples have {image_size} x {image_size} pixels, the images of {reference.name} {shown}"
        raise context.located(RobustokError(what, hint=SIZES_HINT), *keys)


def check_limit(
    context: StageContext, metrics: Mapping[str, Spec], reference: RealImages, limit: int | None, *keys: str
) -> None:
    """Checks, before anything runs, that a limit holds for all metrics.

    Args:
        reference: what it is measured against. limit: the value of this stage's option `keys`.

    Raises:
        RobustokError: if a metric takes the moments of a file, located at the option.
    """
    if limit is None or reference.file is None or statistics_in(reference.file) is None:
        return
    if taking := [name for name, spec in metrics.items() if spec.factory.needs_full_rank]:
        what = f"{reference.name}, for {', '.join(taking)}: {limit_problem(limit)}"
        raise context.located(RobustokError(what, hint=LIMIT_HINT), *keys)


def check_metrics(
    context: StageContext,
    metrics: Mapping[str, Spec],
    num_samples: int | None,
    num_reference: int | None,
    *keys: str,
    reference: RealImages | None = None,
) -> None:
    """Checks that the sample metrics in this stage's option `keys` have the images and networks that they need.

    Args:
        reference: the set that the samples are compared with; None if this stage has no other sets beside it.

    Raises:
        ProblemsError: if they have not.
    """
    networks = SketchedFeatures()
    file = None if reference is None else reference.file
    statistics = None if file is None else statistics_in(file)

    def network(spec: Spec) -> Features | None:
        try:
            return networks(spec)
        except Exception:  # a plugin's network may not be built without its weights, and is then not known yet
            return None

    def check(metric: SampleMetric, spec: Spec) -> None:
        metric.check(num_samples, num_reference)
        metric.check_features(network, statistics)
        for name in metric.other_sets():
            _check_other_set(context, name, reference)
        check_networks(spec, networks)

    check_each(context, {name: partial(check, spec.build(), spec) for name, spec in metrics.items()}, *keys)


def _check_other_set(context: StageContext, name: str, reference: RealImages | None) -> None:
    """Raises RobustokError unless there is such a set besides the reference, of images of the same size."""
    if reference is None:
        what = f"it needs another set of real images ({name!r}), which this stage does not have"
        raise RobustokError(what, hint="measure it in the stage evaluate_generator")
    if name == reference.name:
        such = ', such as reference = "train"' if name == "validation" else ""
        what = f"it needs two sets of real images, but {name!r} is the reference, too"
        raise RobustokError(what, hint=f"choose another reference{such}")
    other = _looked_at(context, name)
    if other.file is not None:
        require_no_statistics(other.file)
    if other.size is not None and reference.size is not None and other.size != reference.size:
        own, real = shown_size(other.size), shown_size(reference.size)
        what = f"the images of {name} have {own} pixels, those of the reference {real}"
        raise RobustokError(what, hint="use images of one size: a network would resize both, but not make them alike")


def say_singular(context: StageContext, metrics: Mapping[str, Spec], networks: Networks, count: int) -> None:
    """Warns if `count` images are too few for the feature covariances that some metrics estimate."""
    estimating = [spec for spec in metrics.values() if spec.factory.needs_full_rank]
    used = [network for spec in estimating for network in all_specs(spec.config) if network.kind == "features"]
    for width in sorted({networks(network).width for network in used}):
        note = singular_note(count, width)
        if note is not None:
            context.say(f"{context.stage}: {note}")


class SampleEvaluation:
    """Sample metrics and a reference. The features of the reference are computed once for all comparisons.

    Args:
        context: the stage's context.
        metrics: by name.
        reference: a split of [data], or the path of a sample file, a folder or a file of statistics.
        limit: the number of reference images to use; None for all.
        batch_size, workers: for loading images and computing features.
        keys: the path of the stage's option for the reference, for messages.
    """

    def __init__(
        self,
        context: StageContext,
        metrics: Mapping[str, Spec],
        *,
        reference: str,
        limit: int | None,
        batch_size: int,
        workers: int = 0,
        keys: tuple[str, ...] = ("reference",),
    ) -> None:
        self._context, self._metrics, self._keys = context, metrics, keys
        self._extraction = Extraction(
            networks=SharedFeatures(context.device),
            device=context.device,
            batch_size=batch_size,
            workers=workers,
            console=context.console,
        )
        self._built = {name: spec.build() for name, spec in metrics.items()}
        self._reference = self._open(reference, limit, keys)
        self._reference.open_other = lambda name, limit: self._open(name, limit, keys)

    def _open(self, reference: str, limit: int | None, keys: tuple[str, ...]) -> KnownNetworkFeatures:
        context = self._context
        if reference in DATA_SPLITS:
            split: Images = getattr(context.dataset(), reference)
            name = f"{reference} images"
            return ExtractedFeatures(split, self._extraction, name=name, cache=context.cache, limit=limit)
        try:
            return open_features(Path(reference).expanduser(), self._extraction, cache=context.cache, limit=limit)
        except RobustokError as error:
            raise context.located(RobustokError(str(error)), *keys) from error

    def note(self, count: int) -> None:
        """Warns if `count` samples are too few for some metrics."""
        say_singular(self._context, self._metrics, self._extraction.networks, count)

    def compare(self, images: Images, name: str, *, say: Callable[[str], None] | None = None) -> dict[str, Result]:
        """The results of all metrics for a set of samples; `say` is called before each metric."""
        samples = ExtractedFeatures(images, self._extraction, name=name)
        if (problem := sizes_problem(samples, self._reference)) is not None:
            raise self._context.located(RobustokError(problem, hint=SIZES_HINT), *self._keys)
        results: dict[str, Result] = {}
        for key, metric in self._built.items():
            if say is not None:
                say(f"{self._context.stage}: measuring {key}")
            add_results(results, key, metric.compute(samples, self._reference))
        return results
