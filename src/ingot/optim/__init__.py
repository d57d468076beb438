"""Optimizers and schedules: how a gradient becomes an update, and how its size changes over a run."""
