"""Comparison of a teacher and a student: do they fit before training, and where do they differ after it?

``findings(before(config, splits))`` returns what is found before a run, each with what to set.
"""

from kd.comparison.comparison import Comparison
from kd.comparison.compatibility import Finding, findings
from kd.comparison.sides import Sample, Side
from kd.comparison.start import before

__all__ = ["Comparison", "Finding", "Sample", "Side", "before", "findings"]
