"""Checks of the networks that metrics and losses use, as far as they are here before a run begins."""

from __future__ import annotations

from functools import partial

import torch

from robustok_core.errors import RobustokError
from robustok_core.runs.downloads import needs_of, with_parts
from robustok_core.values.draws import seeded
from robustok_core.values.spec import Spec
from robustok_stages.costs import SketchedFeatures, image_batch
from robustok_toolkit.checked_files import NotKnownYet, check_once

_SIDE = 64  # of an image that networks are tried on; they take any size


def check_networks(metric: Spec, sketches: SketchedFeatures) -> None:
    """Checks the feature networks of a metric, before anything runs.

    Args:
        metric: the metric. sketches: the networks as far as their shapes tell, shared by several metrics.

    Raises:
        RobustokError: as `check_weights`, or a network gives no features of images.
    """
    check_weights(metric)
    for _, spec in with_parts([((), metric)]):
        if spec.kind == "features":
            check_once((spec.factory, repr(spec.table())), (), partial(_check_features, spec, sketches))


def check_weights(component: Spec) -> None:
    """Builds, on the CPU, what reads files that options of a metric or loss name; nothing that is still downloaded.

    Raises:
        RobustokError: a file holds no weights, or those of another network.
    """
    for _, spec in with_parts([((), component)]):
        _check_files(spec)


def _check_files(spec: Spec) -> None:
    files = list(spec.factory.files(spec.config))
    needs = needs_of([((), spec)], lambda problem: RobustokError(problem.what))
    if files and all(file.exists() for file in files) and not needs.downloads and not needs.problems:
        check_once((spec.factory, repr(spec.table())), files, partial(_build, spec))


def _build(spec: Spec) -> None:
    try:
        with seeded("check"):  # what runs next draws what it would have drawn
            spec.build()
    except RobustokError:
        raise
    except Exception as error:  # a plugin's network may need what only a run has
        raise NotKnownYet from error


def _check_features(spec: Spec, sketches: SketchedFeatures) -> None:
    try:
        network = sketches(spec)
    except Exception as error:  # a plugin's network may not be built without its weights
        raise NotKnownYet from error
    try:
        with torch.no_grad():
            network(image_batch(1, _SIDE).images)
    except RobustokError:
        raise
    except Exception as error:  # a plugin's network may need the values of images
        raise NotKnownYet from error
