"""``kd report``: run directories side by side, as a terminal table and as a page. Needs no torch.

=================  ==============================================================================
``runs``           reading run directories         ``settings``                 what decides a result
``origin``         the commands that made them
``arms``           runs that differ in the seed alone, their names, their matched baselines
``bootstrap``      intervals over seeds and rows
``verdicts``       comparisons and what may be said of them
``study``          all runs with one test set
``sweeps``         jobs that failed, further readings of the test rows, runs that should agree
``contents``       the tables                      ``calibration``, ``curves``  what they read
``figures``        the figures                     ``answer_figures``, ``figure``, ``drawing``
``summary``        the plain words on top          ``document``                 the parts in order
``terminal``       the table in the terminal       ``page``                     HTML, Markdown, files
=================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kd.report.runs import Found
    from kd.report.study import Study


def write_report(folders: Sequence[Path], place: Path) -> Path:
    """Write the report of all runs in or below the folders into ``place``; returns its ``index.html``.

    Raises:
        KDError: no finished run, or a ``place`` that holds something other than a report.
    """
    from kd.report.runs import find_runs
    from kd.report.study import studies

    found = find_runs(folders)
    return write_found(folders, found, studies(found.runs), place)


def write_found(folders: Sequence[Path], found: Found, studies: Sequence[Study], place: Path) -> Path:
    """`write_report`, of runs that were read already."""
    from kd.report.document import document
    from kd.report.page import write

    return write(document(folders, found, studies), Path(place))
