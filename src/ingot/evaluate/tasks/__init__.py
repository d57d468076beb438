"""Tasks that a model is scored in: what they are made of, the standard ones, and those of a folder."""
