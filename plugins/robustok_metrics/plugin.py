"""Registers the feature networks and the metrics."""

from __future__ import annotations

from robustok_core.hookspecs import Register, hookimpl
from robustok_metrics.efficientnet_lite0 import EfficientNetLite0
from robustok_metrics.fashion_classifier import FashionClassifier


@hookimpl
def robustok_register(register: Register) -> None:
    register("features", "efficientnet_lite0", EfficientNetLite0)
    register("features", "fashion_classifier", FashionClassifier)
