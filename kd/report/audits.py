"""The table of the audits that ``kd audit`` has written beside the runs."""

from __future__ import annotations

from collections import Counter

from kd.report.study import Study, written
from kd.report.tables import EMPTY, Cell, Table, number, percent
from kd.storage import audit_record

NOTE = (
    "Comparisons of groups of people by the probability of a class (docs/auditing.md), each against the same student "
    "alone, or against the teacher where the student alone is missing. Largest: the student's largest difference "
    "between two groups. Flips: texts whose label changes when words for women and men are exchanged, in per cent."
)


def audits(study: Study) -> Table | None:
    """Tabulate the audits of the runs; None without one."""
    rows = []
    for arm, run, found in written(study, audit_record.NAME, audit_record.read):
        against = next((name for name in ("alone", "teacher") if name in found["models"]), None)
        shown = [one for one in found["comparisons"] if one["measure"] != "size"]
        counts = Counter(one["verdicts"].get(against) for one in shown)
        verdicts = ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if verdict)
        worst = max(shown, key=lambda one: abs(one["biases"]["student"]["difference"]))
        rows.append(
            [
                *(Cell(arm.name), Cell(str(run.seed)), Cell(f"{found['texts']:,} of {found['source']}")),
                *(Cell(found["of_class"]), Cell(against or ""), Cell(verdicts)),
                Cell(f"{worst['group']} − {worst['reference']}"),
                number(worst["biases"]["student"]["difference"], 3),
                percent(found["flips"]["shares"]["student"]["share"]) if found["flips"] else EMPTY,
            ]
        )
    columns = ["model", "seed", "texts", "class", "against", "verdicts", "largest", "difference", "flips"]
    return Table("audits", "Audits", columns, rows, [NOTE], columns[:7]) if rows else None
