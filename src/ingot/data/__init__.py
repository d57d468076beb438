"""From sources of text to batches of tokens: sources, held-out split, token cache, order, loader."""
