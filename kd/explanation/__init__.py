"""Explanations: which words moved a classifier towards its label, and how student and teacher differ in this."""
