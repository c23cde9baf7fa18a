"""Options: the annotation of a parameter declares what its values may be."""
