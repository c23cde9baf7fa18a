"""Training rows beside the same rows with words for women and men exchanged, for what keeps a bias small."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from scipy.special import softmax
from transformers import PreTrainedTokenizerBase

from kd.data.batching import EncodedSplit, Ragged, in_slices, tokenize
from kd.errors import KDError
from kd.transfer.counterfactual import swapped


def with_tokens(
    split: EncodedSplit, texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> EncodedSplit:
    """Return a split with the tokens of each row's counterpart, which has none where no word is exchanged.

    Raises:
        KDError: no row has such a word.
    """
    others = [(row, new) for row, text in enumerate(in_slices(texts)) if (new := swapped(text)) != text]
    if not others:
        raise KDError(
            "method.consistency compares rows about women and men with their counterparts, found no such training row; "
            "set it to 0"
        )
    tokens, lengths = tokenize(tokenizer, [new for _, new in others], max_length), np.zeros(len(texts), np.int64)
    lengths[[row for row, _ in others]] = tokens.lengths
    ids = Ragged.joined([tokens.values.astype(np.int64)], [lengths])
    found = {"exchanged_input_ids": ids, "exchanged_attention_mask": replace(ids, values=np.ones_like(ids.values))}
    return replace(split, columns={**split.columns, **found})


def with_weights(split: EncodedSplit, texts: list[str], strength: float) -> EncodedSplit:
    """Return a split whose rows weigh ``1 / (1 + strength * bias)`` in the transfer terms, divided by the mean.

    The bias is the largest difference of a probability between the teacher's answers to the row and to its
    counterpart; 0 for a row without one in the split, or without an answer.

    Raises:
        KDError: no row has its counterpart in the split.
    """
    places = {text: row for row, text in enumerate(in_slices(texts))}
    pairs = [(row, places[new]) for text, row in places.items() if (new := swapped(text)) != text and new in places]
    if not pairs:
        raise KDError(
            "method.fair_weights compares the teacher's answers to training rows and to their counterparts, found no "
            "counterpart among the rows; add transfer=[counterfactual]"
        )
    one, other = np.array(pairs).T
    probabilities = softmax(cast(np.ndarray, split.columns["teacher_logits"]).astype(float), axis=1)
    differences = np.nan_to_num(np.abs(probabilities[one] - probabilities[other]).max(axis=1))
    bias = np.zeros(len(texts))
    for rows in (one, other):  # an exchange of words cannot always be undone, so each pair counts for both
        np.maximum.at(bias, rows, differences)
    weights = 1 / (1 + strength * bias)
    return replace(split, columns={**split.columns, "row_weights": (weights / weights.mean()).astype(np.float32)})
