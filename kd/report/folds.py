"""Pool the folds of a cross-validation: the runs of a setting and seed become one run that was tested on all rows."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from kd.report.runs import Found, Run
from kd.report.settings import Named
from kd.report.words import listed
from kd.run.predictions import Split

OF_A_FOLD = ("data.fold", "data.rows", "teacher.weights")
"""Settings in which the folds of one setting differ."""
ROWS = ("data.folds", "data.limit", "data.where", "data.text", "data.label", "data.deduplicate")
"""Settings that decide which rows a fold has."""


def pool_folds(found: Found) -> Found:
    """Return the runs, with those of the folds pooled.

    The folds that are pooled are those of the setting and seed with most of them. A setting and seed without one of
    these is left out, because its rows would be others, and its missing folds are named.
    """
    pooled = Found([run for run in found.runs if run.fold is None], [*found.left_out])
    sets: dict[Hashable, list[Run]] = defaultdict(list)
    for run in found.runs:
        if run.fold is not None:
            sets[data_of(run)].append(run)
    for runs in sets.values():
        groups: dict[Hashable, dict[int, Run]] = defaultdict(dict)
        for run in same_rows(runs, pooled):
            known, fold = groups[setting_of(run)], cast(int, run.fold)
            if fold in known:
                first = known[fold].directory.path
                pooled.leave_out(run.directory, f"fold {fold} in '{run.directory.path}' is also in '{first}'")
            else:
                known[fold] = run
        wanted = max((sorted(folds) for folds in groups.values()), key=len)
        for folds in groups.values():
            if missing := sorted(set(wanted) - set(folds)):
                names = listed([str(fold) for fold in missing])
                for run in folds.values():
                    reason = f"its setting lacks fold {names}, so that its folds cannot be pooled; train data.fold="
                    pooled.leave_out(run.directory, f"'{run.directory.path}': {reason}{','.join(map(str, missing))}")
            else:
                pooled.runs.append(pool([folds[fold] for fold in wanted]))
    return pooled


def same_rows(runs: list[Run], found: Found) -> list[Run]:
    """Return the runs whose test rows are those that most runs of the same fold have; leave out the others."""
    counts = Counter((run.fold, run.test_rows) for run in runs)
    usual = {fold: rows for (fold, rows), _ in reversed(counts.most_common())}
    for run in runs:
        if run.test_rows != usual[run.fold]:
            reason = f"'{run.directory.path}' has other test rows than the other runs of fold {run.fold}"
            found.leave_out(run.directory, f"{reason}; pool data sets one by one")
    return [run for run in runs if run.test_rows == usual[run.fold]]


def data_of(run: Run) -> Hashable:
    """Return what runs must have in common for their folds to be parts of the same rows."""
    return run.metrics["data"], *(repr(run.settings.get(key)) for key in ROWS)


def setting_of(run: Run) -> Hashable:
    """Return setting and seed, without what differs from fold to fold."""
    return run.method, run.seed, frozenset((k, repr(v)) for k, v in run.settings.items() if k not in OF_A_FOLD)


def pool(runs: Sequence[Run]) -> Run:
    """Return one run for those of several folds: their outputs one after another, and the means of their figures."""
    first = runs[0]
    settings = {key: value for key, value in first.settings.items() if key not in OF_A_FOLD}
    for key in OF_A_FOLD[1:]:
        if key in first.settings:
            digest = joined(run.settings[key].value for run in runs)
            settings[key] = Named(digest, f"{first.settings[key].name.partition('@')[0]}@{digest[:7]}")
    validation, metrics = [run.validation for run in runs if run.validation], averaged([run.metrics for run in runs])
    for name in {"validation", "test"} & set(metrics):
        metrics[name]["rows"] = sum(run.metrics[name]["rows"] for run in runs)
    return replace(
        first,
        metrics=metrics,
        environment=environment_of(runs),
        settings=settings,
        test=concatenated([run.test for run in runs]),
        validation=concatenated(validation) if len(validation) == len(runs) else None,
        parts=tuple(runs),
    )


def pooled_sentence(run: Run) -> str:
    """Say which folds a run was pooled from, and which are missing; empty for a run of its own."""
    if not run.parts:
        return ""
    count, there = int(run.parts[0].settings.get("data.folds", 10)), {part.fold for part in run.parts}
    if missing := [str(fold) for fold in range(count) if fold not in there]:
        return (
            f"Pooled over {len(there)} of {count} folds, each row tested once: fold {listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing (data.fold={','.join(missing)})."
        )
    return f"Pooled over {count} folds: each of the {len(run.test.labels):,} rows is tested once."


def environment_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the environment of the first run, with checksums over the rows and the teachers of all."""
    found, rows = dict(runs[0].environment), [run.environment["data"] for run in runs]
    names = ("train", "validation", "test")
    found["data"] = found["data"] | {name: joined(str(one.get(name)) for one in rows) for name in names}
    if found["teacher"]:
        found["teacher"] = found["teacher"] | {"checksum": joined(str(run.teacher) for run in runs)}
    return found


def joined(texts: Any) -> str:
    """Return the checksum of several texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def concatenated(splits: Sequence[Split]) -> Split:
    """Return the rows of all splits, one after another."""
    teachers = [split.teacher for split in splits if split.teacher]
    teacher = concatenated(teachers) if len(teachers) == len(splits) else None
    labels, logits = (np.concatenate([getattr(one, name) for one in splits]) for name in ("labels", "logits"))
    return Split(labels, logits, teacher)


def averaged(found: Sequence[Any]) -> Any:
    """Return the means of the numbers in nested dictionaries, and the first of all other values.

    >>> averaged([{"test": {"rows": 4, "name": "x"}, "one": 1}, {"test": {"rows": 7, "name": "x"}}])
    {'test': {'rows': 6, 'name': 'x'}}
    """
    first = found[0]
    if isinstance(first, dict):
        return {key: averaged([one[key] for one in found]) for key in first if all(key in one for one in found)}
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in found):
        mean = float(np.mean(found))
        return round(mean) if all(isinstance(one, int) for one in found) else mean
    return first
