"""Registers the data sets."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_data.fashion_mnist import FashionMNIST
from robustok_data.fluent_emoji import FluentEmoji
from robustok_data.huggingface import HuggingFace
from robustok_data.image_folder import ImageFolder
from robustok_data.npz import Npz
from robustok_data.prepared import PreparedDataset
from robustok_data.webdataset import WebDataset


@hookimpl
def robustok_register(register: Register) -> None:
    register("dataset", "fashion_mnist", FashionMNIST)
    register("dataset", "fluent_emoji", FluentEmoji)
    register("dataset", "huggingface", HuggingFace)
    register("dataset", "image_folder", ImageFolder)
    register("dataset", "npz", Npz)
    register("dataset", "prepared", PreparedDataset)
    register("dataset", "webdataset", WebDataset)
