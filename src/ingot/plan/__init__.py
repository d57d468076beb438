"""What a recipe will need, by arithmetic and by what was measured here: worked out, then printed."""
