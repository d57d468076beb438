"""Where the records of a run go."""
