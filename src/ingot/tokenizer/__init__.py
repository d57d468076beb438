"""Text to token ids and back, and how a tokenizer is trained."""
