"""Checkpoints: whole or absent, verified on loading, found by a model reference."""
