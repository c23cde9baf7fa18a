"""Lightning's progress bar in one line of a terminal of 80 columns, or of a log."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import BarColumn, ProgressColumn

BAR = 10
"""Columns of the bar itself; left alone it takes 40, and the metrics break over two lines."""


class ProgressBar(RichProgressBar):
    """Its options are those of ``RichProgressBar``."""

    def configure_columns(self, trainer: lightning.Trainer) -> list[ProgressColumn]:
        columns = super().configure_columns(trainer)
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = BAR
        return columns
