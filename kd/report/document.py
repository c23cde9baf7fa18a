"""The report as a document: its parts in order, whatever they are written in."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd import __version__
from kd.report import contents, figures, summary
from kd.report.arms import TITLES
from kd.report.figure import Figure
from kd.report.runs import Found
from kd.report.study import Study
from kd.report.sweeps import Agreement, agreement, commands, find_sweeps, problems
from kd.report.tables import Cell, Table
from kd.report.words import listed, plural


@dataclass(frozen=True)
class Block:
    """A heading with what stands under it."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Section:
    """One test set.

    Args:
        prefix: of its files' names, where there are several.
        commands: that made its runs.
    """

    title: str
    prefix: str
    summary: Sequence[str]
    facts: Sequence[summary.Fact]
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
    """Everything that is said."""
    sweeps = find_sweeps(folders)
    absent = problems(found, sweeps)
    troubles = [one for one in absent if one.state != "pruned"]
    agreed = agreement(arm for study in studies for arm in study.arms)
    titles = [f"{study.students} on {study.data}" for study in studies]
    warnings = [f"Should agree and do not: {one}" for one in agreed.disagreements[:3]]
    if len(agreed.disagreements) > 3:
        warnings.append(f"{len(agreed.disagreements) - 3} more pairs of runs disagree; see Reproducibility.")
    if troubles:
        warnings.append(
            f"{plural(len(troubles), 'run')} not in the tables: see what failed or is missing, with reasons, below."
        )
    lacking = [missing for study in studies for missing in study.missing]
    if lacking:
        count = sum(len(one.arms) for one in lacking)
        warnings.append(f"{plural(count, 'setting')} without a matched baseline: see below for how to get it.")
    sections = [
        section(study, title, f"{number}-" if len(studies) > 1 else "", commands(study.everything, sweeps))
        for number, (study, title) in enumerate(zip(studies, titles, strict=True), start=1)
    ]
    closing = [reading(studies), *missing_baselines(studies), *left_out(troubles)]
    closing += [*given_up(len(absent) - len(troubles)), reproducibility(agreed)]
    return Document(
        titles[0] if len(titles) == 1 else f"{plural(len(titles), 'test set')}: {listed(titles)}",
        f"{plural(len(found.runs), 'finished run')}, read by kd {__version__} on {time.strftime('%Y-%m-%d at %H:%M')}",
        warnings,
        sections,
        closing,
        shlex.join(["kd", "report", *map(str, folders)]),
    )


def section(study: Study, title: str, prefix: str, made_by: list[str]) -> Section:
    tables = {table.name: table for table in contents.tables(study)}
    drawn = {figure.name: figure for figure in figures.figures(study)}
    pick = lambda source, *names: [source[name] for name in names if name in source]  # noqa: E731
    maps = [name for name in drawn if name.startswith("heat-map")]
    brought = tables.get("brought") or tables.get("peers")
    blocks = [
        Block("Results", (), (), pick(tables, "results")),
        Block(brought.title if brought else "", (), pick(drawn, "brought"), pick(tables, "brought", "peers")),
        Block(f"What {TITLES[1]}", (), (), pick(tables, "ways")),
        Block(f"What {TITLES[2]}", (), (), pick(tables, "word-table")),
        Block("What validation chose", chosen(study), pick(drawn, *maps, "curves"), pick(tables, "best")),
        Block(
            "Size, speed and cost",
            (),
            pick(drawn, "accuracy-latency", "accuracy-parameters", "accuracy-bytes"),
            pick(tables, "costs"),
        ),
        Block("Agreement with the teacher", (), pick(drawn, "fidelity"), pick(tables, "fidelity")),
        Block("Calibration", (), pick(drawn, "reliability", "reliability-after"), pick(tables, "calibration")),
    ]
    kept = [block for block in blocks if block.tables or block.figures]
    return Section(title, prefix, summary.sentences(study), summary.facts(study), kept, made_by)


def chosen(study: Study) -> list[str]:
    """Which split chose."""
    if study.best is None:
        return ["These runs kept no figures of the validation split: nothing was chosen."]
    rows = f" ({study.validation_rows:,} rows)" if study.validation_rows else ""
    return [
        f"Settings are chosen by mean accuracy on the validation split{rows}, ties by its negative log-likelihood; "
        f"so is the epoch whose weights a run keeps. That is {study.best.name}. No test row took part."
    ]


def reading(studies: Sequence[Study]) -> Block:
    """How often the test rows were read."""
    lines = []
    for study in studies:
        runs, reads = len(study.everything), study.test_reads
        further = (
            f", and {plural(reads - runs, 'time')} more by kd evaluate or by runs trained again" if reads > runs else ""
        )
        lines.append(
            f"The test split of {study.data} ({study.rows:,} rows) was read {plural(reads, 'time')}: once by each of "
            f"{plural(runs, 'run')}, after training{further}. Whoever looks at many test figures and keeps the best "
            "has chosen by them: quote the setting that validation chose."
        )
    return Block("What was read, and how often", lines)


def missing_baselines(studies: Sequence[Study]) -> list[Block]:
    lacking = [missing for study in studies for missing in study.missing]
    if not lacking:
        return []
    rows = [
        [
            Cell(", ".join(one.arms)),
            Cell(", ".join(map(str, one.seeds))),
            Cell(one.command or "the runs do not tell how they were made"),
        ]
        for one in lacking
    ]
    columns = ("model", "seeds", "command that trains the baseline")
    table = Table("missing-baselines", "Missing baselines", columns, rows, (), columns)
    text = "Only the same student trained alone on the same data, budget and seed can tell what a teacher brought."
    return [Block("Missing baselines", [text], (), [table])]


def left_out(troubles: Sequence) -> list[Block]:
    if not troubles:
        return []
    rows = [[Cell(one.what), Cell(one.state), Cell(one.reason), Cell(one.log)] for one in troubles]
    columns = ("run", "state", "reason", "log")
    table = Table("left-out", "Not in the tables", columns, rows, (), columns)
    return [
        Block("Not in the tables", ["Runs that failed, are not finished, are damaged or are missing."], (), [table])
    ]


def given_up(count: int) -> list[Block]:
    """Runs that a search pruned."""
    if not count:
        return []
    line = f"{plural(count, 'run')} ended early, because a search's other trials were ahead (callbacks=[pruning])."
    return [Block("Given up by the search", [f"{line} That is as it should be; they are in no table."])]


def reproducibility(agreed: Agreement) -> Block:
    """Whether runs that should agree do."""
    lines = [f"Should agree and do not: {one}" for one in agreed.disagreements]
    if agreed.equal:
        lines.append(
            f"{plural(agreed.equal, 'further run')} of the same configuration, seed, machine and software "
            "(trainer.deterministic=true) gave the very same logits, bit for bit."
        )
    if agreed.other_ground:
        lines.append(
            f"{plural(agreed.other_ground, 'further run')} of a setting and seed that is there already: on another "
            "machine, software, rows or teacher, or without trainer.deterministic=true, so that nothing is promised; "
            "the first counts."
        )
    return Block("Reproducibility", lines or ["No run was trained twice, so that none could be held against itself."])
