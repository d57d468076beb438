"""This machine against its ceilings, and ingot against its peers, measured side by side in one run."""
