"""Compare the attributions of several models on many texts: ranks, single words, and what happens without them.

K models, of which the first is the student; N texts, W words of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import spearmanr
from scipy.stats import t as student_t

from kd.errors import KDError
from kd.explanation.attribution import Attribution, Model, without, words_of
from kd.report.bootstrap import Bootstrap, Spread

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of a text's words that are left out."""
ORDERS = 2
"""Random orders that the order by influence is compared with."""
FEWEST_WORDS, FEWEST_TEXTS, MOST_SHOWN = 3, 5, 12
"""Words of a text, and texts of a word, below which it is left out; rows of the table of words."""


def compared(
    models: Sequence[Model], found: Sequence[Sequence[Attribution]], texts: Sequence[str], labels: np.ndarray
) -> dict[str, Any]:
    """Return what `kd.storage.explanation_record.OverData` has about the models, from their attributions ``[K][N]``.

    Args:
        labels: ``[N]``, the label that each text is explained for: the student's.

    Raises:
        KDError: fewer than two texts can be compared.
    """
    pairs = list(combinations(range(len(models)), 2))
    ranks = np.array([[rank_correlation(a, b) for a, b in zip(found[i], found[j], strict=True)] for i, j in pairs])
    usable = np.array([len(each.values) >= FEWEST_WORDS for each in found[0]]) & np.isfinite(ranks).all(axis=0)
    kept = np.flatnonzero(usable).tolist()
    if len(kept) < 2:
        raise KDError(
            f"expected at least 2 texts of {FEWEST_WORDS} words or more whose words have influence, found {len(kept)} "
            f"among {len(texts)}; give more rows"
        )
    texts, labels, own = [texts[row] for row in kept], labels[kept], [[each[row] for row in kept] for each in found]
    curves = [deletion(model, each, texts, labels) for model, each in zip(models, own, strict=True)]
    areas = [(random - ranked)[1:].mean(axis=0) for ranked, random in curves]
    spreads = Bootstrap(np.array([*areas, *(rank[kept] for rank in ranks)]))
    said = [model.logits(texts).argmax(axis=1) for model in models]
    names = models[0].label_names
    words = [differing_words(own[0], each, texts, [names[one] for one in labels], names) for each in own[1:]]
    return {
        **{"rows": len(kept), "left_out": len(usable) - len(kept), "shares": [0.0, *SHARES]},
        "models": [
            {
                **{**facts_of(each), "area": estimate(spreads.accuracies([number]))},
                **{"ranked": ranked.mean(axis=1).tolist(), "random": random.mean(axis=1).tolist()},
            }
            for number, (each, (ranked, random)) in enumerate(zip(own, curves, strict=True))
        ],
        "pairs": [
            {
                **{"models": [models[i].name, models[j].name], "same_label": float((said[i] == said[j]).mean())},
                "correlation": estimate(spreads.accuracies([len(models) + number])),
            }
            for number, (i, j) in enumerate(pairs)
        ],
        # The lines of three models: three areas, then student and teacher, student and other, teacher and other.
        "gain": estimate(spreads.differences([3], [5])) if len(models) == 3 else None,
        "words": [{"other": one.name, **row} for one, (rows, _) in zip(models[1:], words, strict=True) for row in rows],
        "words_tested": words[0][1] if words else 0,
    }


def estimate(spread: Spread) -> dict[str, Any]:
    """Return a mean over texts with its 95 % interval."""
    return {"mean": spread.estimate, "interval": list(spread.interval())}


def facts_of(found: Sequence[Attribution]) -> dict[str, Any]:
    """Return the mean influence of a word, and the completeness over texts: mean change, mean and largest gap."""
    gaps = [each.gap for each in found if each.gap is not None]
    changes = [abs(each.change[0]) for each in found if each.change is not None]
    return {
        "influence": float(np.abs(np.concatenate([each.values for each in found])).mean()),
        "gap": float(np.mean(gaps)) if gaps else None,
        "largest_gap": max(gaps) if gaps else None,
        "change": float(np.mean(changes)) if changes else None,
    }


def rank_correlation(first: Attribution, second: Attribution) -> float:
    """Return Spearman's rank correlation of the words' influences; nan where one has no order."""
    if len(first.values) < FEWEST_WORDS or not np.ptp(first.values) or not np.ptp(second.values):
        return np.nan
    return float(spearmanr(first.values, second.values).statistic)


def deletion(
    model: Model, found: Sequence[Attribution], texts: Sequence[str], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the label's probability ``[1 + len(SHARES), N]`` while words are left out.

    Returns:
        with the words of the most influence first, and with random words first.

    Source: Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, 2015,
    https://arxiv.org/abs/1509.06321
    """
    generator, changed = np.random.default_rng(0), []
    for text, each in zip(texts, found, strict=True):
        spans, words = words_of(text), len(each.values)
        orders = [np.argsort(-each.values, kind="stable"), *(generator.permutation(words) for _ in range(ORDERS))]
        counts = [int(np.ceil(share * words - 1e-9)) for share in SHARES]
        changed += [without(text, spans, order[:count]) for order in orders for count in counts]
    odds = model.log_odds(changed, np.repeat(labels, (1 + ORDERS) * len(SHARES)))
    parts = expit(odds).reshape(len(texts), 1 + ORDERS, len(SHARES))
    whole = expit([each.odds for each in found])[:, None]
    ranked, random = (np.hstack([whole, part]).T for part in (parts[:, 0], parts[:, 1:].mean(axis=1)))
    return ranked, random


def differing_words(
    first: Sequence[Attribution],
    second: Sequence[Attribution],
    texts: Sequence[str],
    labels: Sequence[str],
    names: Sequence[str],
) -> tuple[list[dict[str, Any]], int]:
    """Return the words whose mean influence differs most between two models, and the number of words looked at.

    Each model's influences are divided by the mean of their absolute values, so that a model that is surer of
    everything does not differ in each word. If the models have two labels, all influences are towards the second.
    Words whose 95 % interval includes 0 are left out; first comes the one whose interval is farthest from 0.
    """
    rows, both = [], len(names) == 2
    scales = [np.abs(np.concatenate([each.values for each in found])).mean() for found in (first, second)]
    for text, label, one, other in zip(texts, labels, first, second, strict=True):
        sign, towards = (1 if label == names[-1] else -1, names[-1]) if both else (1, label)
        for (start, end), *values in zip(words_of(text), one.values, other.values, strict=True):
            shares = [sign * value / scale for value, scale in zip(values, scales, strict=True)]
            rows.append((text[start:end].casefold(), towards, text, *shares))
    keys = ["word", "towards"]
    of_text = pd.DataFrame(rows, columns=[*keys, "text", "first", "second"]).groupby([*keys, "text"]).mean()
    of_text["difference"] = of_text["first"] - of_text["second"]
    table = of_text.groupby(keys).agg(["mean", "std", "count"])
    table = table[table["difference", "count"] >= FEWEST_TEXTS]
    counts, middle = table["difference", "count"], table["difference", "mean"]
    reach = student_t.ppf(0.975, counts - 1) * table["difference", "std"] / np.sqrt(counts)
    certain = (middle.abs() - reach).sort_values(ascending=False, kind="stable")
    shown = [
        {
            **dict(zip(keys, key, strict=True)),
            "texts": int(counts[key]),
            "influences": [float(table.loc[key, (name, "mean")]) for name in ("first", "second")],
            "difference": {
                "mean": float(middle[key]),
                "interval": [float(middle[key] - reach[key]), float(middle[key] + reach[key])],
            },
        }
        for key in certain[certain > 0].index[:MOST_SHOWN]
    ]
    return shown, len(table)
