"""What a model is worth: measured on text that it has not seen."""
