"""Live streaming: text read, encoded and packed by processes in the background while a run trains on it.

Nothing but the tokenizer and some held-out text is kept on disk. A run is cut into slots, of which each has documents,
a shuffle and a process of its own; what a slot gives depends on its number alone, and on how many there are.
"""
