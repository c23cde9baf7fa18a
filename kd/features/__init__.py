"""Features, which are inner outputs of models: how they are read, paired and mapped."""
