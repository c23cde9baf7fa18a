"""What is found about a teacher and a student, before or after the training: each with its evidence and what to set."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from scipy.stats import ttest_1samp
from sklearn.metrics import cohen_kappa_score

from kd.comparison.answers import softness
from kd.comparison.comparison import Comparison
from kd.comparison.sides import MOST_ROWS, Side
from kd.data.batching import Ragged, tokenize
from kd.data.inspection import NO_LIMIT
from kd.data.unknown import unknown_pieces
from kd.errors import KDError
from kd.report.calibration import calibration, fit_temperature
from kd.report.words import listed, millions
from kd.storage.model_folder import longest_text
from kd.teacher.label_order import check_label_order

LENGTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
UNKNOWN, CUT, WIDE = 0.02, 0.05, 0.9
"""Share of unknown pieces and of cut texts that are too many, and the share of the variance that is enough."""
SMALL_INFORMATION, NEARLY = 0.01, 0.5
"""Nats below which answers say next to nothing beyond their label, and the part of the largest that is enough."""
MANY_PARAMETERS, LARGE_RATIO = 10, 100
"""Parameters outside the word table for each row, and times the student's parameters, that are many."""


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        name: what it is about.
        sentence: the evidence, with figures.
        setting: what to set, an option of ``kd train``; None where nothing needs to change.
    """

    name: str
    sentence: str
    setting: str | None = None


def findings(comparison: Comparison) -> list[Finding]:
    """Return all findings for which a comparison has data; the names of options are those of ``kd train``."""
    return [found for find in FINDERS if (found := find(comparison))]


def labels(one: Comparison) -> Finding | None:
    """Check that label i of the teacher is label i of the data."""
    if not one.teacher.answers:
        return None
    try:
        check_label_order("", one.held[0].logits, one.sample.held_labels, one.sample.label_names)
    except KDError as error:
        sentence, _, advice = str(error).partition("; ")
        found = re.search(r"data\.label_names=\[.*?\]", advice)
        return Finding("label order", "The " + sentence.replace(" ''", "", 1) + ".", found and found[0])
    names = ", ".join(one.sample.label_names)
    return Finding("label order", f"The labels of the teacher and of the data have the same order ({names}).")


def tokenizers(one: Comparison) -> Finding:
    """Compare the two vocabularies: what they share, how they tokenise, and what they do not have."""
    theirs, own = (side.tokenizer for side in (one.teacher, one.student))
    texts, known, words = one.sample.texts[:MOST_ROWS], theirs.get_vocab(), own.get_vocab()
    same = np.mean([theirs.tokenize(text) == own.tokenize(text) for text in texts])
    lacking, lacked = (unknown_pieces(tokenizer, one.sample.held_texts) for tokenizer in (own, theirs))
    examples = f" (such as {', '.join(map(repr, lacking.examples))})" if lacking.examples else ""
    sentence = (
        f"{100 * len(known.keys() & words.keys()) / len(words):.1f} % of the student's {len(words):,} pieces are among "
        f"the teacher's {len(known):,}; {100 * same:.1f} % of {len(texts):,} training texts have the same pieces in "
        f"both. Of the pieces of held-out texts, {100 * lacking.share:.1f} % are unknown to the student{examples} and "
        f"{100 * lacked.share:.1f} % to the teacher."
    )
    worse = lacking.share > max(UNKNOWN, lacked.share) and one.student.layers
    return Finding("tokenizers", sentence, "tokenizer=restricted" if worse else None)


def lengths(one: Comparison) -> Finding:
    """Say how much of the texts is cut off, and which length covers 99 % of them."""
    texts, parts, needed = one.sample.texts[:MOST_ROWS], [], 0
    for side in (one.teacher, one.student):
        counts, limit = tokens(side, texts).lengths, side.classifier.max_length
        cut, lost = np.mean(counts > limit), np.maximum(counts - limit, 0).sum() / counts.sum()
        parts.append(
            f"the {side.name} reads {limit} pieces and cuts {100 * cut:.1f} % of the texts ({100 * lost:.1f} % of all "
            "pieces)"
        )
        needed = max(needed, int(np.quantile(counts, 0.99))) if cut > CUT else needed
    config = getattr(getattr(one.teacher.classifier, "model", None), "config", None)  # an export has none
    wanted = next((length for length in LENGTHS if length >= needed), LENGTHS[-1])
    wanted = min(wanted, (longest_text(config) if config else None) or wanted)
    setting = f"data.max_length={wanted}" if wanted > one.student.classifier.max_length else None
    return Finding("length", f"In {len(texts):,} training texts {listed(parts)}.", setting)


def tokens(side: Side, texts: Sequence[str]) -> Ragged:
    """Return the pieces of whole texts, with special tokens."""
    return tokenize(side.tokenizer, texts, NO_LIMIT)


def layers(one: Comparison) -> Finding | None:
    """Say what a linear probe reads in each layer of the teacher."""
    probes, own = one.probes
    if not probes:
        return None
    scores = [float(np.mean(right)) for right in probes]
    best = int(np.argmax(scores))
    # The lowest layer that is not clearly worse: a lower one is nearer to what a small student computes.
    enough = next(layer for layer, right in enumerate(probes) if layer == best or not clearly(probes[best], right))
    sentence = (
        f"A linear probe, fitted to {min(MOST_ROWS, len(one.sample.labels)):,} training rows, has "
        f"{100 * scores[best]:.1f} % of the held-out rows right on the teacher's layer {best}, {100 * scores[0]:.1f} % "
        f"on its embeddings and {100 * scores[-1]:.1f} % on its last layer, {len(scores) - 1}; the lowest layer that "
        f"is not significantly worse than the best is {enough}."
    )
    if own:
        sentence += f" On the student's last layer it is {100 * np.mean(own[-1]):.1f} %."
    known = one.on_layers and own and one.teacher.answers  # fine-tuning changes what a backbone has in its layers
    setting = f"method.layers=[[{len(own) - 1},{enough}]]" if known else None
    return Finding("layers", sentence, setting)


def clearly(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether one model is significantly better than another on the same rows (paired t-test, 5 %)."""
    return difference(first, second)[1] > 0


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same rows with its 95 % interval."""
    gap = first.astype(float) - second
    if not gap.std():
        return float(gap.mean()), float(gap.mean()), float(gap.mean())
    low, high = ttest_1samp(gap, 0.0).confidence_interval()
    return float(gap.mean()), float(low), float(high)


def width(one: Comparison) -> Finding | None:
    """Say how much of the variance of the teacher's last layer fits into the width of the student's."""
    if not one.shares or not one.width:
        return None
    carried = [float(shares[min(one.width, len(shares)) - 1]) for shares in one.shares]
    needed = int(np.searchsorted(one.shares[-1], WIDE)) + 1
    sentence = (
        f"{one.width} dimensions, as in the student's last layer, carry {100 * carried[-1]:.1f} % of the variance of "
        f"the teacher's last layer ({one.held[0].layers[-1].shape[1]} wide), and {100 * min(carried):.1f} % of that of "
        f"the layer where it is least; {100 * WIDE:.0f} % of the last layer needs {needed} dimensions."
    )
    if carried[-1] < WIDE:
        sentence += f" A student whose last layer has {needed} could follow it better."
    return Finding("width", sentence)


def alignment(one: Comparison) -> Finding | None:
    """Say which layers are most alike."""
    if one.similarity is None:
        return None
    row, column = np.unravel_index(one.similarity.argmax(), one.similarity.shape)
    top = one.similarity[-1]
    state = "" if one.student.trained else ", before the training,"
    sentence = (
        f"The student's last layer is{state} most like the teacher's layer {int(top.argmax())} (CKA {top.max():.2f}; "
        f"its last layer: {top[-1]:.2f}); of all pairs, layer {row} of the student and {column} of the teacher are "
        f"most alike ({one.similarity[row, column]:.2f})."
    )
    return Finding("CKA", sentence)


def confidence(one: Comparison) -> Finding | None:
    """Say at which temperature the teacher's answers to training rows say most beyond their labels."""
    if not one.teacher.answers:
        return None
    sure = softmax(one.training[0].logits.astype(np.float64), axis=1).max(axis=1)
    best = max(one.softness, key=lambda at: at.information)
    now = softness(one.training[0].logits, one.temperature or 1.0)
    sentence = (
        f"On training rows the teacher gives its label {100 * sure.mean():.1f} % on average, and more than 99 % to "
        f"{100 * np.mean(sure > 0.99):.1f} % of the rows. At temperature {now.temperature:g} its answers say "
        f"{now.information:.3f} nats beyond the label, at {best.temperature:g} the most: {best.information:.3f}."
    )
    if best.information < SMALL_INFORMATION:
        return Finding(
            "confidence",
            f"{sentence} It says little at any temperature: train it for fewer epochs, or choose another.",
            "teacher.epochs=1",
        )
    # Above the best one nothing is lost, because the loss is multiplied by the square of the temperature.
    low = now.temperature < best.temperature and now.information < NEARLY * best.information
    return Finding("confidence", sentence, f"temperature={best.temperature:g}" if low else None)


def calibrated(one: Comparison) -> Finding | None:
    """Say how well the teacher's confidence matches its accuracy on held-out rows."""
    right = one.correct[0]
    if right is None:
        return None
    logits, gold = one.held[0].logits, one.sample.held_labels
    fitted = fit_temperature(logits, gold)
    before, after = calibration(logits, gold), calibration(logits, gold, fitted)
    sentence = (
        f"On {len(gold):,} held-out rows the teacher is right on {100 * right.mean():.1f} %; its expected calibration "
        f"error is {100 * before.ece:.1f} points, and {100 * after.ece:.1f} at temperature {fitted:.2f}, which "
        "calibrates it best."
    )
    return Finding("calibration", sentence)


def rows(one: Comparison) -> Finding | None:
    """Compare the number of training rows with the student's size."""
    counts, sample = one.student.parameters, one.sample
    if counts is None or not one.student.layers:  # a closed form has no more weights than its rows decide
        return None
    number = sample.labelled + sample.unlabelled
    each = counts["without_embeddings"] / number
    others = f" and {sample.unlabelled:,} rows without a label" if sample.unlabelled else ""
    sentence = (
        f"The student has {millions(counts['total'])} M parameters, {millions(counts['without_embeddings'])} M outside "
        f"its word table, and learns from {sample.labelled:,} labelled rows{others}: {each:,.1f} a row."
    )
    return Finding("rows", sentence, "data.unlabelled=FILE" if each > MANY_PARAMETERS else None)


def gap(one: Comparison) -> Finding:
    """Say what there is to win: the teacher, or its best layer, against a bag of words and against the student."""
    theirs, own = one.correct
    trained, name = theirs is not None, "The teacher"
    if theirs is None:
        theirs, name = max(one.probes[0], key=np.mean), "Before its fine-tuning, a probe of the teacher's best layer"
    lead, low, high = (100 * value for value in difference(theirs, one.bag))
    sentence = (
        f"{name} has {100 * theirs.mean():.1f} % of the held-out rows right, a bag of words {100 * one.bag.mean():.1f} "
        f"%: a lead of {lead:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})."
    )
    if own is not None and trained:
        missing, least, most = (100 * value for value in difference(theirs, own))
        sentence += (
            f" The student has {100 * own.mean():.1f} %, {missing:+.1f} points behind ({least:+.1f} to {most:+.1f})."
        )
    sides, ratio = (one.teacher.parameters, one.student.parameters), 0.0
    if sides[0] and sides[1] and one.student.layers:
        ratio = sides[0]["without_embeddings"] / max(1, sides[1]["without_embeddings"])
        sentence += f" Outside the word table the teacher has {ratio:,.0f} times the student's parameters."
    if trained and low <= 0:
        return Finding("capacity gap", f"{sentence} No teacher is needed for a bag.", "student=bag method=supervised")
    return Finding("capacity gap", sentence, "teacher=assistant" if ratio > LARGE_RATIO else None)


def agreement(one: Comparison) -> Finding | None:
    """Say how often both give the same label, after a run."""
    right = one.correct[1]
    if right is None or not one.teacher.answers:
        return None
    theirs, own = (outputs.logits.argmax(axis=1) for outputs in one.held)
    wrong = ~right
    copied = np.mean((theirs == own)[wrong]) if wrong.any() else 0.0
    sentence = (
        f"Teacher and student give the same label to {100 * np.mean(theirs == own):.1f} % of {len(own):,} held-out "
        f"rows (Cohen's kappa {cohen_kappa_score(theirs, own):.2f}); the teacher makes {100 * copied:.1f} % of the "
        "student's mistakes too."
    )
    return Finding("agreement", sentence)


FINDERS: tuple[Callable[[Comparison], Finding | None], ...] = (
    *(labels, tokenizers, lengths, layers, width, alignment, confidence, calibrated, rows, gap, agreement),
)
