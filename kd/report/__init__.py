"""``kd report``: run directories side by side, as a terminal table and as a page. Needs no torch.

===============================  ====================================================================
``runs``, ``settings``           read run directories; the settings that decide a result
``origin``, ``sweeps``           the commands that made them; failed jobs, repeated trainings
``folds``                        one run for the folds of a cross-validation
``arms``                         runs that differ in the seed alone, and their matched baselines
``bootstrap``, ``verdicts``      intervals over seeds and rows; which differences are significant
``study``                        all runs with one test set
``contents``, ``tables``         the tables, with ``calibration``; as Markdown, CSV or LaTeX
``cascades``, ``evaluations``, ``explanations``, ``audits``, ``comparisons``   the tables of later commands
``figures``, ``drawing``         the figures; as PNG or SVG
``summary``, ``document``        the sentences at the top; all parts in order
``terminal``, ``page``           the table in the terminal; HTML, Markdown and files
===============================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_report(folders: Sequence[Path], place: Path) -> Path:
    """Write the report of all runs in or below the folders into ``place``; return its ``index.html``.

    Raises:
        KDError: there is no finished run, or ``place`` holds something other than a report.
    """
    from kd.report.document import document
    from kd.report.folds import pool_folds
    from kd.report.page import write
    from kd.report.runs import find_runs
    from kd.report.study import studies

    found = pool_folds(find_runs(folders))
    return write(document(folders, found, studies(found.runs)), place)
