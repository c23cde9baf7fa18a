"""Lightning's progress bar, narrow enough for a terminal or a log with 80 columns."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import BarColumn, ProgressColumn


class ProgressBar(RichProgressBar):
    """A ``RichProgressBar`` with a short bar and the same options."""

    def configure_columns(self, trainer: lightning.Trainer) -> list[ProgressColumn]:
        columns = super().configure_columns(trainer)
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 10  # at the default of 40, the metrics need a second line
        return columns
