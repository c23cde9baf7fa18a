"""Inner outputs of models: which there are, how they are read, paired and mapped."""
