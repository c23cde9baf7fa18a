"""A study of ``kd auto``: the files of its candidates, the command of its search, and what came out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from kd.advice.plan import Plan, Planned, overrides_of, shown
from kd.advice.rules import words_of
from kd.errors import KDError
from kd.report.document import Block, Document, Section, document
from kd.report.folds import pool_folds
from kd.report.page import write
from kd.report.runs import find_runs
from kd.report.study import studies
from kd.report.tables import Cell, Table, number, percent
from kd.run.directory import RunDirectory
from kd.runtime.launch import quoted
from kd.storage.files import write_text
from kd.sweep.record import score

GROUP = "candidate"
AWAY = "the time was over before it began"


@dataclass(frozen=True)
class Tried:
    """What became of a candidate: its run, the metric on validation if it is done, and why it was given up if not."""

    one: Planned
    run: RunDirectory | None
    validation: float | None
    given_up: str | None


def write_candidates(study: Path, plan: Plan) -> list[str]:
    """Write a file of Hydra's group ``candidate`` for each candidate that is to be trained; return their names."""
    kept = [one for one in plan.candidates if not one.left_out]
    (study / "conf" / GROUP).mkdir(parents=True, exist_ok=True)
    for one in kept:
        chosen = {"defaults": [{f"override /{group}": yaml.safe_load(value)} for group, value in one.choices]}
        options: Any = OmegaConf.to_container(OmegaConf.from_dotlist(words_of(one.options)))
        content = yaml.safe_dump(chosen | options, sort_keys=False)
        write_text(study / "conf" / GROUP / f"{one.name}.yaml", f"# @package _global_\n{content}")
    return [one.name for one in kept]


def search_words(study: Path, plan: Plan, names: Sequence[str], seconds: float) -> list[str]:
    """Return the words of ``kd train`` that search among the candidates."""
    first = ",".join(f"{{+{GROUP}:{name}}}" for name in names)
    return [
        *("train", "-m", "--config-dir", str(study / "conf"), *plan.words, f"+{GROUP}={','.join(names)}"),
        *("hydra/sweeper=optuna", f"hydra.sweeper.first=[{first}]", f"hydra.sweeper.n_trials={len(names)}"),
        *(f"hydra.sweeper.minutes={seconds / 60:g}", "hydra.sweeper.study_name=auto", "hydra.sweeper.n_jobs=1"),
        *("callbacks=[checkpoint,progress,halving]", "measure_test=false", "hydra.launcher.report=false"),
        f"hydra.sweep.dir={quoted(str(study))}",
    ]


def outcomes(study: Path, plan: Plan) -> list[Tried]:
    """Return what became of the candidates, the best on validation first, then in the order of the plan."""
    runs = {
        re.sub(r"-[0-9a-f]{8}$", "", status.parent.name): RunDirectory(status.parent)
        for status in sorted(study.glob("*/status.json"))
    }
    found = []
    for one in plan.candidates:
        run = runs.get(one.name)
        if one.left_out or run is None:
            found.append(Tried(one, None, None, one.left_out or AWAY))
            continue
        status = run.status()
        value = score(run) if status["state"] == "done" else None
        found.append(Tried(one, run, value, None if value is not None else str(status.get("reason"))))
    return sorted(found, key=lambda tried: -1.0 if tried.validation is None else -tried.validation - 2.0)


def winner_of(tried: Sequence[Tried]) -> tuple[Tried, RunDirectory]:
    """Return the best candidate and its run.

    Raises:
        KDError: none is done.
    """
    best = tried[0]
    if best.run is None or best.validation is None:
        raise KDError(f"expected a candidate that is done, found none ({best.given_up}); raise --budget")
    return best, best.run


def again(plan: Plan, one: Planned) -> str:
    """Return the command that trains a candidate again."""
    return " ".join(["kd", "train", *map(shown, [*plan.words, *overrides_of(one)])])


def table(tried: Sequence[Tried]) -> Table:
    """Tabulate what was tried and given up."""
    rows = []
    for each in tried:
        seconds = each.run.metrics().get("training_seconds") if each.run and each.validation is not None else None
        why = each.given_up or ("chosen" if each is tried[0] else "; ".join(each.one.why))
        figures = percent(each.validation), number(each.one.size / 1e6, 1), number(each.one.ms), number(seconds, 0)
        rows.append([Cell(each.one.name), *figures, Cell(why)])
    columns = ("candidate", "validation %", "MB", "ms", "training s", "why, or why given up")
    return Table("tried", "What was tried and given up", columns, rows, (), (columns[0], columns[-1]))


def write_report(study: Path, plan: Plan, tried: Sequence[Tried]) -> Path:
    """Write the report of the winner, below what was tried; return its ``index.html``."""
    best, run = winner_of(tried)
    found = pool_folds(find_runs([run.path]))
    whole: Document = document([run.path], found, studies(found.runs))
    lines = ["Chosen on validation alone. Only the winner has read the test rows, once.", *plan.said]
    blocks = [Block("What was tried", (), (), [table(tried)])]
    made = Section("The choice", "auto-", lines, (), blocks, [again(plan, best.one)])
    return write(replace(whole, sections=[made, *whole.sections]), study / "report")


def refuse_another(known: Plan, asked: tuple[list[str], list[str], bool], study: Path) -> None:
    """Refuse to go on with a study of other data or limits.

    Raises:
        KDError: naming both.
    """
    if (known.words, known.at_most, known.labels) != asked:
        before = " ".join([*known.words, *(f"--at-most {one}" for one in known.at_most)]) or "no options"
        raise KDError(f"'{study}' holds a study with other options ({before}); give another folder with --study")
