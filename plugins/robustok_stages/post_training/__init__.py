"""Stages that adapt decoders to generators."""
