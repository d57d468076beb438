"""Models in other programs' formats: what writes a format stands beside what reads it."""
