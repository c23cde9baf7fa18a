"""Make the plan: which candidates to train, what each costs on this machine, and which a limit leaves out."""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from kd.advice.rules import Candidate, Facts, shortlist, smaller, taught, words_of
from kd.config import build
from kd.config.check import check
from kd.config.compose import composed
from kd.errors import KDError
from kd.runtime import fork_memory
from kd.runtime.launch import quoted
from kd.runtime.silence import quiet
from kd.storage import records
from kd.storage.records import Amount, Record, Size
from kd.sweep.jobs import parsed
from kd.sweep.progress import duration

if TYPE_CHECKING:  # it loads torch, which a refused command does not need
    from kd.advice import costs

CHOSEN = (
    *("student", "method", "embeddings", "tokenizer", "transfer", "transfer_rows", "alpha", "temperature", "loss"),
    *("trainer.max_epochs", "callbacks", "measure_test", "sweep", "objective", "rerun", "hydra", "experiment"),
)
"""Keys that the plan sets, so that the user may not."""
UNITS = {
    "time": {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0},
    "size": {"kB": 1e3, "MB": 1e6, "GB": 1e9},
}
OF_ONE = 0.35
"""Share of the budget that the run of one TextCNN may take."""


class Planned(Record):
    """A candidate with its costs; ``left_out`` says why it is not trained."""

    name: str
    choices: list[list[str]]
    options: list[list[str]]
    why: list[str]
    size: Size
    ms: Amount
    seconds: Amount
    left_out: str | None = None


class Plan(Record):
    """``plan.json`` of a study: what was asked, and what is tried."""

    format: Size
    words: list[str]
    at_most: list[str]
    labels: bool
    teacher_seconds: Amount
    said: list[str]
    candidates: list[Planned]


NAME = "plan.json"


@dataclass(frozen=True)
class Limits:
    """What the user needs: milliseconds of a text, bytes, seconds in all; None without a limit."""

    ms: float | None = None
    size: float | None = None
    seconds: float | None = None
    labels: bool = True


def quantity(text: str, units: Sequence[str], option: str) -> tuple[str, float]:
    """Return the kind of a quantity and its value in seconds or bytes.

    >>> quantity("5MB", ("time", "size"), "--at-most"), quantity("1 ms", ("time",), "--at-most")
    (('size', 5000000.0), ('time', 0.001))
    """
    known = {unit: (kind, factor) for kind in units for unit, factor in UNITS[kind].items()}
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text.strip())
    if not found or found[2] not in known or float(found[1]) <= 0:
        raise KDError(f"{option}: expected a number above 0 with one of {', '.join(known)}, got {text!r}")
    kind, factor = known[found[2]]
    return kind, float(found[1]) * factor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``kd advise`` and ``kd auto`` have in common."""
    parser.add_argument("words", nargs="*", metavar="OPTION=VALUE", help="data and teacher, as for kd train")
    help_of_limits = "such as 1ms for a text, or 5MB; may be repeated"
    parser.add_argument("--at-most", action="append", default=[], metavar="LIMIT", help=help_of_limits)
    parser.add_argument("--no-labels", action="store_true", help="the labels of the data are the teacher's own")


def limits_of(at_most: Sequence[str], budget: str | None, labels: bool) -> Limits:
    """Return the limits of a command line."""
    given = dict[str, float]()
    for text in at_most:
        kind, value = quantity(text, ("time", "size"), "--at-most")
        given[kind] = min(value, given.get(kind, value))
    seconds = None if budget is None else quantity(budget, ("time",), "--budget")[1]
    return Limits(1000 * given["time"] if "time" in given else None, given.get("size"), seconds, labels)


def composed_for(words: Sequence[str]) -> Any:
    """Compose a configuration, with its choices as plain values."""
    config = composed(words)
    config.choices = OmegaConf.to_container(config.choices, resolve=True)
    return config


def refuse_chosen(words: Sequence[str]) -> None:
    """Refuse options that the plan chooses, and several values.

    Raises:
        KDError: naming the option.
    """
    for one, word in zip(parsed(words), words, strict=True):
        key = str(one.key_or_group)
        if any(key == chosen or key.startswith((f"{chosen}.", f"{chosen}/", f"{chosen}@")) for chosen in CHOSEN):
            raise KDError(
                f"{key}: expected an option of the data or the teacher, got {word!r}, which is chosen for you"
            )
        if one.is_sweep_override():
            raise KDError(f"{key}: expected one value, got {word!r}; start the command once for each")


def make_plan(words: Sequence[str], at_most: Sequence[str], limits: Limits) -> Plan:
    """Read the data, choose the candidates by the rules, and measure what they cost.

    Raises:
        KDError: an option is wrong, or the labels or the teacher are missing.
    """
    from kd.advice import costs

    refuse_chosen(words)
    quiet()
    config = composed_for([*words, "student=bag", "method=supervised"])
    check(config)
    known = dict[str, costs.Cost | KDError]()

    def measure(candidates: Sequence[Candidate]) -> None:
        new = {key: one for one in candidates if (key := key_of(one)) not in known}
        configs = {key: composed_for(untaught(words, one)) for key, one in new.items()}
        known.update(costs.student_costs(configs, splits))

    with fork_memory.keeping():
        splits = build.splits(config)
        facts = costs.facts_of(config, splits, limits.labels)
        require_teacher(facts)
        teacher = costs.teacher_cost(config, splits, facts)
        measure(candidates := shortlist(facts))
        if limits.seconds:
            first = next((known[key_of(one)] for one in candidates if one.get("student") == "textcnn"), None)
            row = first.row if isinstance(first, costs.Cost) else 1e-6
            each = max(0.0, OF_ONE * limits.seconds - costs.OF_A_RUN)
            texts, epochs = int(each / (teacher.answer + 5 * row)), int(each / (row * facts.rows))
            candidates = shortlist(replace(facts, most_texts=texts, most_epochs=epochs))
        if limits.size:
            large = [one for one in candidates if getattr(known[key_of(one)], "size", math.inf) > limits.size]
            measure(small := [other for one in large if (other := smaller(one))])
            candidates = [*candidates, *small]
    spent = round(teacher.tuning + (0.0 if teacher.labelled else teacher.answer * facts.rows))
    return Plan(
        format=records.FORMAT,
        words=list(words),
        at_most=list(at_most),
        labels=limits.labels,
        teacher_seconds=spent,
        said=said(facts, teacher),
        candidates=[planned(one, known[key_of(one)], facts.rows, teacher.answer, words, limits) for one in candidates],
    )


def planned(
    one: Candidate, cost: costs.Cost | KDError, rows: int, answer: float, words: Sequence[str], limits: Limits
) -> Planned:
    """Return a candidate with its costs, and why it is left out.

    Args:
        one: the candidate.
        cost: of its student, or why there is none.
        rows: training rows without a transfer set.
        answer: seconds that the teacher takes for a text.
        words: options of all candidates.
        limits: what the user needs.
    """
    size, ms, seconds, left_out = 0, 0.0, 0.0, str(cost) or None
    if not isinstance(cost, KDError):
        texts = int(one.get("transfer_rows") or 0)
        seconds = cost.seconds(rows + texts, int(one.get("trainer.max_epochs") or 1)) + texts * answer
        size, ms, left_out = cost.size, cost.ms, refusal(words, one) or beyond(cost.ms, cost.size, limits)
    return Planned(
        name=one.name,
        choices=list(map(list, one.choices)),
        options=list(map(list, one.options)),
        why=list(one.why),
        size=size,
        ms=round(ms, 3),
        seconds=round(seconds),
        left_out=left_out,
    )


def require_teacher(facts: Facts) -> None:
    """Refuse ``--no-labels`` without a teacher that was trained for the task.

    Raises:
        KDError: there is none.
    """
    if not facts.labels and facts.teacher not in ("answers", "tuned"):
        raise KDError(
            "--no-labels: expected a teacher that was trained for the task, found one that learns from labels; set "
            "teacher=answers teacher.path=FILE, or teacher=hf teacher.name_or_path=FOLDER teacher.fine_tune=false"
        )


def refusal(words: Sequence[str], one: Candidate) -> str | None:
    """Return why ``kd train`` refuses a candidate for this data and teacher; None if it does not."""
    try:
        check(composed_for([*words, *one.overrides]))
    except KDError as error:
        return str(error)
    return None


def key_of(one: Candidate) -> str:
    """Return what decides the size and the speed of a candidate's student."""
    return " ".join(words_about(one, ("student", "tokenizer", "embeddings")))


def untaught(words: Sequence[str], one: Candidate) -> list[str]:
    """Return the overrides of a candidate's student, trained alone."""
    return [*words, *words_about(one, ("student", "tokenizer", "embeddings", "teacher")), "method=supervised"]


def words_about(one: Candidate, sections: Sequence[str]) -> list[str]:
    """Return the overrides of a candidate that are about these sections of the configuration."""
    return words_of(pair for pair in (*one.choices, *one.options) if pair[0].split(".")[0] in sections)


def beyond(ms: float, size: int, limits: Limits) -> str | None:
    """Return which limit a student does not keep; None if it keeps all."""
    if limits.ms and ms > limits.ms:
        return f"{ms:.2f} ms for a text, more than {limits.ms:g} ms"
    if limits.size and size > limits.size:
        quarter = "; kd export --to int8 makes about a quarter" if size < 4 * limits.size else ""
        return f"{size / 1e6:.1f} MB, more than {limits.size / 1e6:g} MB{quarter}"
    return None


def said(facts: Facts, teacher: Any) -> list[str]:
    """Return what was found, and what holds for all candidates."""
    kinds = {
        "none": "There is no teacher.",
        "answers": "The teacher is a file of answers.",
        "tuned": "The teacher is trained.",
        "untuned": f"The teacher must be fine-tuned first, in about {duration(teacher.tuning)}.",
    }
    speed = f" It answers {1 / teacher.answer:.0f} texts a second, one in {teacher.ms:.1f} ms." if teacher.ms else ""
    rows = f"{facts.rows:,} training rows, {facts.labelled:,} with a label, {facts.classes} classes"
    return [f"{rows}, {facts.words:.0f} words in a text. {kinds[facts.teacher]}{speed}", *taught(facts)[2]]


def fitted(plan: Plan, budget: float) -> Plan:
    """Leave out the candidates that alone need more seconds than a budget has; of the others, the time decides.

    Raises:
        KDError: no network fits.
    """
    left, found = budget - plan.teacher_seconds, list[Planned]()
    for one in plan.candidates:
        late = f"about {one.seconds:.0f} s, more than the budget has" if one.seconds > left else None
        found.append(one.model_copy(update={"left_out": one.left_out or late}))
    needs = [one.seconds for one in plan.candidates if not one.left_out and "trainer.max_epochs" in dict(one.options)]
    if needs and min(needs) > left:
        least = duration(plan.teacher_seconds + min(needs))
        raise KDError(f"--budget: expected at least {least} for the teacher and a network, got {duration(budget)}")
    return plan.model_copy(update={"candidates": found})


def overrides_of(one: Planned) -> list[str]:
    """Return a candidate's options as words of the command line."""
    return words_of((*one.choices, *one.options))


def show(plan: Plan) -> None:
    """Print the plan."""
    console = Console(soft_wrap=False)
    for line in plan.said:
        print(textwrap.fill(line, min(console.width, 100), subsequent_indent="  "))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("candidate", "MB", "ms", "about s", "why"):
        table.add_column(name, justify="left" if name in ("candidate", "why") else "right", overflow="fold")
    for one in plan.candidates:
        why = f"left out: {one.left_out}" if one.left_out else "; ".join(one.why)
        table.add_row(one.name, f"{one.size / 1e6:.1f}", f"{one.ms:.2f}", f"{one.seconds:.0f}", why)
    console.print(table, highlight=False, markup=False)
    for one in plan.candidates:
        if not one.left_out:
            print(f"{one.name}: {' '.join(map(shown, overrides_of(one)))}")


def shown(word: str) -> str:
    """Write an override for a shell: quoted where it has brackets or blanks.

    >>> shown("alpha=0.9"), shown("transfer=[edits]")
    ('alpha=0.9', "'transfer=[edits]'")
    """
    return word if re.fullmatch(r"[\w./:=@+,-]+", word) else quoted(word)


def read(study: Path) -> Plan | None:
    """Read the plan of a study; None if there is none."""
    if not (study / NAME).is_file():
        return None
    advice = "move its folder away, and the study starts anew"
    return Plan.model_validate(records.read(study / NAME, Plan, sealed=True, advice=advice))
