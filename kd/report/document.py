"""The parts of the report in order, without their format."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd import __version__
from kd.report import contents, figures, summary
from kd.report.drawing import Figure
from kd.report.runs import Found
from kd.report.study import Study
from kd.report.sweeps import Agreement, Problem, agreement, commands, find_jobs, problems
from kd.report.tables import Cell, Table
from kd.report.words import METRICS, listed, plural

UNEQUAL = "Should be equal and are not"
BLOCKS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("", ("results",), ()),
    ("", ("gain", "peers"), ("gain",)),
    ("The transfer set", (), ("size-curve",)),
    ("", ("bag",), ()),
    ("", ("methods",), ()),
    ("", ("embeddings",), ()),
    ("Choice by validation", ("best",), ("heat-map", "curves")),
    ("", ("fitting",), ()),
    ("", ("metrics",), ()),
    ("", ("costs",), ("accuracy",)),
    ("", ("fidelity",), ("fidelity",)),
    ("", ("calibration",), ("reliability",)),
    ("", ("cascades",), ()),
    ("", ("evaluations",), ()),
    ("", ("explanations",), ()),
    ("", ("audits",), ()),
    ("", ("comparisons",), ()),
)
"""The parts of a test set: title, or that of the first table; names of the tables; beginnings of the figures' names."""


@dataclass(frozen=True)
class Block:
    """A heading, and the text, figures and tables under it."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Section:
    """One test set.

    Args:
        prefix: the beginning of its files' names, where there are several test sets.
        facts: a few figures, each with its meaning.
        commands: the commands that made its runs.
    """

    title: str
    prefix: str
    summary: Sequence[str]
    facts: Sequence[tuple[str, str]]
    blocks: Sequence[Block]
    commands: Sequence[str]


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    subtitle: str
    warnings: Sequence[str]
    sections: Sequence[Section]
    closing: Sequence[Block]
    command: str


def document(folders: Sequence[Path], found: Found, studies: Sequence[Study]) -> Document:
    jobs = find_jobs(folders)
    absent = problems(found, jobs)
    agreed = agreement(arm for study in studies for arm in study.arms)
    warnings = [f"{UNEQUAL}: {one}" for one in agreed.disagreements[:3]]
    if len(agreed.disagreements) > 3:
        warnings.append(f"{len(agreed.disagreements) - 3} more pairs of runs disagree; see Reproducibility.")
    if troubles := sum(one.state != "pruned" for one in absent):
        warnings.append(f"{plural(troubles, 'run')} not in the tables: the reasons are given below.")
    if lacking := sum(len(missing.arms) for study in studies for missing in study.missing):
        count = plural(lacking, "setting")
        warnings.append(f"{count} without a matched baseline: the command that trains it is given below.")
    sections = [
        section(study, f"{number}-" if len(studies) > 1 else "", commands(study.trainings, jobs))
        for number, study in enumerate(studies, start=1)
    ]
    runs = sum(len(run.trainings) for run in found.runs)
    titles = [study.title for study in studies]
    return Document(
        titles[0] if len(titles) == 1 else f"{plural(len(titles), 'test set')}: {listed(titles)}",
        f"{plural(runs, 'finished run')}, read by kd {__version__} on {time.strftime('%Y-%m-%d at %H:%M')}",
        warnings,
        sections,
        [*closing(studies, absent), reproducibility(agreed)],
        shlex.join(["kd", "report", *map(str, folders)]),
    )


def section(study: Study, prefix: str, made_by: list[str]) -> Section:
    tables, drawn, blocks = contents.tables(study), figures.figures(study), []
    for title, names, prefixes in BLOCKS:
        its_tables = [table for table in tables if table.name in names]
        its_figures = [figure for figure in drawn if figure.name.startswith(prefixes)]
        if its_tables or its_figures:
            text = chosen(study) if "best" in names else ()
            blocks.append(Block(title or its_tables[0].title, text, its_figures, its_tables))
    return Section(study.title, prefix, summary.sentences(study), summary.facts(study), blocks, made_by)


def chosen(study: Study) -> list[str]:
    """Say how the best setting was chosen."""
    if study.best is None:
        return ["These runs kept no figures of the validation split, so that no setting was chosen."]
    count = next((len(run.validation.labels) for run in study.runs if run.validation), None)
    rows = f" ({count:,} rows)" if count else ""
    return [
        f"The best setting has the highest mean {METRICS[study.metric]} on the validation split{rows}; the lower "
        f"negative log-likelihood breaks ties: {study.best.name}. Each run keeps the weights of its best epoch on "
        "validation. No test row is used."
    ]


def test_reads(study: Study) -> str:
    """Say how often the test rows were read: by every training, copies of a run included, and by ``kd evaluate``."""
    runs, reads = len(study.trainings), sum(run.directory.test_reads() for run in study.trainings)
    more = f", and {plural(reads - runs, 'time')} more by kd evaluate or repeated trainings" if reads > runs else ""
    return (
        f"The test split of {study.data} ({study.rows:,} rows) was read {plural(reads, 'time')}: once by each of "
        f"{plural(runs, 'run')}, after training{more}. The best of many test figures is too optimistic: quote "
        "the setting that validation chose."
    )


def closing(studies: Sequence[Study], absent: Sequence[Problem]) -> list[Block]:
    """Build the parts on all test sets: readings of the test rows, and what is missing."""
    made = [Block("How often the test rows were read", list(map(test_reads, studies)))]
    unknown = "the runs have no record of their command"
    lacking = [missing for study in studies for missing in study.missing]
    lines = [(", ".join(one.arms), ", ".join(map(str, one.seeds)), one.command or unknown) for one in lacking]
    if lines:
        columns = ("model", "seeds", "command that trains the baseline")
        text = "The gain of a teacher is measured against the supervised student with the same data, budget and seed."
        made.append(words_block("missing-baselines", "Missing baselines", text, columns, lines))
    if troubles := [one for one in absent if one.state != "pruned"]:
        text = "Runs that failed, did not finish, are damaged or are missing."
        made.append(words_block("left-out", "Not in the tables", text, ("run", "state", "reason", "log"), troubles))
    if pruned := len(absent) - len(troubles):
        line = f"{plural(pruned, 'run')} ended early, because other trials of the search were better"
        text = f"{line} (callbacks=[pruning]). This is intended; they are in no table."
        made.append(Block("Pruned by the search", [text]))
    return made


def words_block(name: str, title: str, text: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Block:
    return Block(
        title, [text], (), [Table(name, title, columns, [list(map(Cell, line)) for line in lines], (), columns)]
    )


def reproducibility(agreed: Agreement) -> Block:
    """Say whether repeated trainings are equal."""
    lines = [f"{UNEQUAL}: {one}" for one in agreed.disagreements]
    if agreed.equal:
        lines.append(
            f"{plural(agreed.equal, 'further run')} of the same configuration, seed, machine and software "
            "(trainer.deterministic=true) gave the same logits, bit for bit."
        )
    if agreed.not_promised:
        lines.append(
            f"{plural(agreed.not_promised, 'further run')} of the same setting and seed, but on another machine, "
            "software, rows or teacher, or without trainer.deterministic=true. Their results may differ; the first run "
            "counts."
        )
    return Block("Reproducibility", lines or ["No run was trained twice, so that no results can be compared."])
