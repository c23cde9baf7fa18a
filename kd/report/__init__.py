"""``kd report``: run directories side by side, as a terminal table and as a page. Needs no torch.

=================  ==============================================================================
``runs``           reads run directories           ``settings``                 settings that decide a result
``origin``         the commands that made them
``arms``           runs that differ in the seed alone, their names, their matched baselines
``bootstrap``      intervals over seeds and rows
``verdicts``       comparisons, and which differences are significant
``study``          all runs with one test set
``sweeps``         jobs that failed, commands, repeated trainings that are not equal
``contents``       the tables                      ``calibration``, ``curves``  their input
``figures``        the figures                     ``answer_figures``, ``figure``, ``drawing``
``summary``        the sentences at the top        ``document``                 the parts in order
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
    """Write the report of all runs in or below the folders into ``place``; return its ``index.html``.

    Raises:
        KDError: there is no finished run, or ``place`` holds something other than a report.
    """
    from kd.report.runs import find_runs
    from kd.report.study import studies

    found = find_runs(folders)
    return write_found(folders, found, studies(found.runs), place)


def write_found(folders: Sequence[Path], found: Found, studies: Sequence[Study], place: Path) -> Path:
    """Write the report of runs that are already read; see `write_report`."""
    from kd.report.document import document
    from kd.report.page import write

    return write(document(folders, found, studies), Path(place))
