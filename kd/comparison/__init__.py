"""Comparison of a teacher and a student: do they fit before training, and where do they differ after it?"""

from kd.comparison.compatibility import Comparison, Finding, findings
from kd.comparison.sides import Sample, Side

__all__ = ["Comparison", "Finding", "Sample", "Side", "findings"]
