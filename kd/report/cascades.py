"""The table of the cascades that ``kd cascade`` has written beside the runs."""

from __future__ import annotations

from kd.report.study import Study, written
from kd.report.tables import Cell, Table, number, percent
from kd.storage import cascade_record

NOTE = (
    "The student answers where its calibrated confidence reaches the threshold, and passes the other texts on. The "
    "promise holds with the given confidence; kept: the share of the teacher's right answers. The other figures are of "
    "the test rows that did not choose the threshold, or, where the note of the rows says otherwise, of the rows that "
    "chose it, and then too optimistic. ms: one text with the tokenizer."
)


def cascades(study: Study) -> Table | None:
    """Tabulate the cascades of the runs; None without one."""
    rows = []
    for arm, run, found in written(study, cascade_record.NAME, cascade_record.read):
        kind = "agreement" if found["kind"] == "agreement" else "kept"
        shown = found["measured"] or found["calibration"]
        spent, alone = shown["milliseconds"], found["teacher"]["milliseconds"]
        rows.append(
            [
                Cell(arm.name),
                Cell(str(run.seed)),
                Cell(f"{kind} ≥ {100 * found['target']:g} %, {100 * found['confidence']:g} %"),
                number(found["threshold"], 4),
                Cell(f"{shown['rows']} of {found['source']}" + ("" if found["measured"] else ", which chose it")),
                percent(1 - shown["answered"][-1] / shown["rows"]),
                percent(1 - shown["differing"] / shown["rows"]),
                percent(shown["accuracy"]),
                number(spent),
                number(spent / alone if alone else None),
            ]
        )
    columns = ["model", "seed", "promise", "threshold", "rows", "by students", "agreement", "accuracy", "ms"]
    columns.append("times teacher")
    return Table("cascades", "Cascades", columns, rows, [NOTE], ("model", "seed", "promise", "rows")) if rows else None
