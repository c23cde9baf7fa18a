"""The table of what ``kd evaluate --on`` has written beside the runs, and its line of the model card."""

from __future__ import annotations

from kd.report.study import Study, written
from kd.report.tables import EMPTY, Cell, Table, percent, points
from kd.run.directory import RunDirectory
from kd.storage import evaluation_record

NOTE = (
    "In per cent. Points: accuracy minus that on the first data set, with a 95 % interval. Worst slice: the part of "
    "the rows with the lowest accuracy against all other rows, in points; named where its simultaneous interval, which "
    "allows for the number of slices, lies below 0. Flipped: rows that get another label when their words are "
    "shuffled. The page evaluation/index.html beside the run has the rest."
)


def evaluations(study: Study) -> Table | None:
    """Tabulate the evaluations of the runs; None without one."""
    rows = []
    for arm, run, found in written(study, evaluation_record.NAME, evaluation_record.read):
        shuffled = [one["flipped"]["value"] for one in found["robustness"] if "order" in one["name"]]
        for place, one in enumerate(found["data"]):
            accuracy, gap, worst = one["metrics"]["accuracy"], one["difference"], one["slices"][:1]
            named = [part for part in worst if part["difference"]["high"] < 0]
            rows.append(
                [
                    *(
                        Cell(arm.name),
                        Cell(str(run.seed)),
                        Cell(one["name"]),
                        Cell(f"{one['rows']:,}", one["rows"]),
                    ),
                    percent(accuracy["value"]),
                    points(gap and gap["value"]),
                    Cell("[{}, {}]".format(*(points(gap[side]).text for side in ("low", "high")))) if gap else EMPTY,
                    percent(one["metrics"]["ece"]["value"]),
                    percent(one["teacher"]["agreement"]["value"] if one["teacher"] else None),
                    Cell(f"{named[0]['name']}: {points(named[0]['difference']['value']).text}") if named else EMPTY,
                    percent(shuffled[0] if shuffled and not place else None),
                ]
            )
    columns = ["model", "seed", "data", "rows", "accuracy", "points", "interval", "ECE", "agreement", "worst slice"]
    columns.append("flipped")
    words = ("model", "seed", "data", "worst slice")
    return Table("evaluations", "Other data", columns, rows, [NOTE], words) if rows else None


def on_other_data(run: RunDirectory) -> list[str]:
    """Return for each data set but the first what a run's accuracy is on it, in words."""
    found = evaluation_record.read(run.path)
    made = []
    for one in found["data"][1:] if found else ():
        value, low, high = (percent(one["metrics"]["accuracy"][key]).text for key in ("value", "low", "high"))
        change = points(one["difference"]["value"] if one["difference"] else None).text
        made.append(f"{value} % on `{one['name']}` ({one['rows']:,} rows, {low} to {high}; {change} points)")
    return made
