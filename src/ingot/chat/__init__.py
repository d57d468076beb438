"""Conversations with a model: what fits into its context, and the program that talks in a terminal."""
