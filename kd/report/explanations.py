"""The table of what ``kd explain`` has found over a data set beside the runs."""

from __future__ import annotations

from kd.errors import KDError
from kd.report.study import Study, written
from kd.report.tables import Cell, Table, number
from kd.run.directory import RunDirectory
from kd.storage import explanation_record

NOTE = (
    "Rank correlation: Spearman's, of the words' influences on the label that the student gives, with the teacher or "
    "with another run (other); mean over texts with its 95 % interval. Area: how much lower the probability of that "
    "label is without the student's most influential words than without random ones; above 0, the influences name "
    "words that matter. Only equal methods can be compared."
)


def explanations(study: Study) -> Table | None:
    """Tabulate the explanations of the runs; None without one."""
    rows = []
    for arm, run, record in written(study, explanation_record.NAME, explanation_record.read):
        found = record["data"]
        pairs = [pair for pair in found["pairs"] if pair["models"][0] == "student"] if found else []
        for pair in pairs:
            cells = []
            for estimate in (pair["correlation"], found["models"][0]["area"]):
                low, high = estimate["interval"]
                cells += [number(estimate["mean"]), Cell(f"[{low:.2f}, {high:.2f}]", (low, high))]
            named = (arm.name, str(run.seed), pair["models"][1], found["method"])
            rows.append([*map(Cell, named), Cell(f"{found['rows']} of {found['source']}"), *cells])
    words = ("model", "seed", "with", "method", "texts")
    columns = [*words, "rank correlation", "95 %", "area", "area 95 %"]
    return Table("explanations", "Explanations", columns, rows, [NOTE], words) if rows else None


def explained(run: RunDirectory) -> str | None:
    """Return what ``kd explain`` found over a data set, for the model card; None where it found nothing there."""
    try:
        found = explanation_record.read(run.path)["data"] if (run.path / explanation_record.NAME).is_file() else None
    except KDError:
        return None
    if not found:
        return None
    area, pairs = found["models"][0]["area"], [pair for pair in found["pairs"] if pair["models"][0] == "student"]
    text = (
        f"Explained over {found['rows']:,} texts of `{found['source']}`: without the words of most influence, the "
        f"probability of its label is {area['mean']:.3f} lower than without random ones ("
        "{:.3f} to {:.3f})".format(*area["interval"])
    )
    for pair in pairs:
        low, high = pair["correlation"]["interval"]
        text += f"; rank correlation of the words with the {pair['models'][1]} {pair['correlation']['mean']:.2f}"
        text += f" ({low:.2f} to {high:.2f})"
    return f"{text}."
