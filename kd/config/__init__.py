"""The configuration: where it lies, what it may name, what is wrong with it, and the objects it describes."""
