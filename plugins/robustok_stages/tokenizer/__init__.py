"""Stages that train and evaluate tokenizers."""
