"""Cascades: a small student answers where it is sure, and the teacher answers the rest."""
