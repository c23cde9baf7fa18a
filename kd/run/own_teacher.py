"""Find the fine-tuned teacher that a run has learned from. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage import records


def own_teacher(run: RunDirectory) -> Path:
    """Return the folder of the fine-tuned teacher that a run has learned from.

    Raises:
        KDError: the run had none, or it is not there any more.
    """
    described: dict[str, Any] | None = run.environment().get("teacher")
    if described is None:
        raise KDError(f"the run in '{run.path}' was trained without a teacher; give one with --teacher")
    outputs = Path(run.config().get("outputs") or "outputs")
    for place in (*run.path.resolve().parents, outputs):  # a copied folder has its own teachers
        for facts in sorted(place.glob("teachers/*/teacher.json")):
            if records.read(facts, records.TrainedTeacher)["checksum"] == described["checksum"].partition("+")[0]:
                return facts.parent / "model"
    raise KDError(
        f"expected the teacher of the run in '{run.path}' ({described.get('name')}) below '{outputs / 'teachers'}', "
        "found no such model; give the folder of a teacher with --teacher"
    )
