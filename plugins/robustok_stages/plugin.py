"""Registers the stages."""

from __future__ import annotations

from robustok_core.hookspecs import Register, hookimpl
from robustok_stages.evaluate_generator import EvaluateGenerator
from robustok_stages.evaluate_tokenizer import EvaluateTokenizer
from robustok_stages.make_pairs import MakePairs
from robustok_stages.post_train import PostTrain
from robustok_stages.sample import Sample
from robustok_stages.tokenize import Tokenize
from robustok_stages.train_generator import TrainGenerator
from robustok_stages.train_tokenizer import TrainTokenizer


@hookimpl
def robustok_register(register: Register) -> None:
    """Registers the stages of this package."""
    register("stage", "train_tokenizer", TrainTokenizer)
    register("stage", "evaluate_tokenizer", EvaluateTokenizer)
    register("stage", "tokenize", Tokenize)
    register("stage", "train_generator", TrainGenerator)
    register("stage", "sample", Sample)
    register("stage", "evaluate_generator", EvaluateGenerator)
    register("stage", "make_pairs", MakePairs)
    register("stage", "post_train", PostTrain)
