"""Text from a model: a key/value cache, sampling, and the generator that joins them with a tokenizer."""
