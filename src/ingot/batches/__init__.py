"""Many prompts continued at once: read from a file, kept as they are finished, written in the form asked for."""
