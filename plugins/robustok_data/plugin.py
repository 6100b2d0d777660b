"""Registers the data sets."""

from __future__ import annotations

from robustok_core.hookspecs import Register, hookimpl
from robustok_data.fashion_mnist import FashionMNIST


@hookimpl
def robustok_register(register: Register) -> None:
    register("dataset", "fashion_mnist", FashionMNIST)
