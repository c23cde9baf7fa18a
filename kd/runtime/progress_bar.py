"""Lightning's progress bar, narrow enough for a terminal or a log with 80 columns."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import BarColumn, ProgressColumn

BAR = 10
"""Columns of the bar itself; by default it takes 40, and the metrics need a second line."""


class ProgressBar(RichProgressBar):
    """A ``RichProgressBar`` with a short bar and the same options."""

    def configure_columns(self, trainer: lightning.Trainer) -> list[ProgressColumn]:
        columns = super().configure_columns(trainer)
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = BAR
        return columns
