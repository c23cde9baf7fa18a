"""A run on disk: its directory, its identity, its environment and its curves."""
