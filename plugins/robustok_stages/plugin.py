"""Registers the stages."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_stages.generator.calibrate import Calibrate
from robustok_stages.generator.evaluate_generator import EvaluateGenerator
from robustok_stages.generator.generation_gap import GenerationGap
from robustok_stages.generator.latent_mmd import LatentMMD
from robustok_stages.generator.sample import Sample
from robustok_stages.generator.train_generator import TrainGenerator
from robustok_stages.latents.tokenize import Tokenize
from robustok_stages.post_training.compare_decoders import CompareDecoders
from robustok_stages.post_training.make_pairs import MakePairs
from robustok_stages.post_training.post_train import PostTrain
from robustok_stages.tokenizer.evaluate_tokenizer import EvaluateTokenizer
from robustok_stages.tokenizer.take_tokenizer import TakeTokenizer
from robustok_stages.tokenizer.train_tokenizer import TrainTokenizer


@hookimpl
def robustok_register(register: Register) -> None:
    """Registers the stages of this package."""
    register("stage", "train_tokenizer", TrainTokenizer)
    register("stage", "take_tokenizer", TakeTokenizer)
    register("stage", "evaluate_tokenizer", EvaluateTokenizer)
    register("stage", "tokenize", Tokenize)
    register("stage", "train_generator", TrainGenerator)
    register("stage", "sample", Sample)
    register("stage", "evaluate_generator", EvaluateGenerator)
    register("stage", "generation_gap", GenerationGap)
    register("stage", "latent_mmd", LatentMMD)
    register("stage", "calibrate", Calibrate)
    register("stage", "make_pairs", MakePairs)
    register("stage", "post_train", PostTrain)
    register("stage", "compare_decoders", CompareDecoders)
