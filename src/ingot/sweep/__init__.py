"""A grid of runs over values of a recipe's keys, and what it says."""
