"""Stages that train, sample and evaluate generators."""
