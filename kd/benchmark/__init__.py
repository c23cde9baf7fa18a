"""Measure classifiers on this machine, in each form that it can run them."""
