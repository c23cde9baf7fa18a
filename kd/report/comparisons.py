"""The table of what ``kd compare`` has found about the runs and their teachers."""

from __future__ import annotations

from kd.report.study import Study, written
from kd.report.tables import Cell, Table, number, percent
from kd.report.words import plain
from kd.storage import comparison_record

NOTE = (
    "A student against its teacher on held-out rows. Agree: rows with the same label, in per cent. Least: the part of "
    "the rows where this is lowest. CKA: of the last layers, 1 where both arrange the texts alike. Probe: share of the "
    "rows that a linear classifier of the last layer has right, of the teacher and of the student. Set: what the "
    "findings name. The page comparison/index.html beside the run has the rest."
)


def comparisons(study: Study) -> Table | None:
    """Tabulate the comparisons of the runs; None without one."""
    rows = []
    for arm, run, found in written(study, comparison_record.NAME, comparison_record.read):
        least = min(found["groups"], key=lambda one: one["agreement"], default=None)
        rows.append(
            [
                *(Cell(arm.name), Cell(str(run.seed)), Cell(f"{found['rows']:,} of {found['source']}")),
                percent(found["agreement"]),
                Cell(plain(f"{least['name']} ({100 * least['agreement']:.1f})" if least else "")),
                number(found["similarity"][-1][-1] if found["similarity"] else None),
                *(percent(side[-1] if side else None) for side in found["probes"]),
                Cell(plain("; ".join(one["setting"] for one in found["findings"] if one["setting"]))),
            ]
        )
    columns = ["model", "seed", "rows", "agree", "least", "CKA", "teacher probe", "student probe", "set"]
    words = ("model", "seed", "rows", "least", "set")
    return Table("comparisons", "Comparisons with the teacher", columns, rows, [NOTE], words) if rows else None
