"""Rows beside their counterparts: the tokens that the student reads, and the weights by the teacher's bias."""

import numpy as np
import pytest

from kd.assembly.counterparts import with_tokens, with_weights
from kd.data.batching import EncodedSplit, tokenize
from kd.errors import KDError

TEXTS = ["she is funny", "the film is dull", "he is funny", "the man is warm"]


def split(tokenizer, logits=None):
    columns = {} if logits is None else {"teacher_logits": np.array(logits, np.float32)}
    return EncodedSplit(tokenize(tokenizer, TEXTS, 8), np.zeros(4, int), tokenizer.pad_token_id, columns=columns)


def test_a_batch_has_the_tokens_of_the_counterparts(assembled):
    tokenizer = assembled("method=supervised").tokenizer
    batch = with_tokens(split(tokenizer), TEXTS, tokenizer, 8)[[0, 1]]
    ids, mask = batch["exchanged_input_ids"], batch["exchanged_attention_mask"]
    assert ids[0][mask[0].bool()].tolist() == tokenize(tokenizer, ["he is funny"], 8)[0].tolist()
    assert mask[1].sum() == 0, "no word to exchange"
    with pytest.raises(KDError, match=r"method\.consistency compares rows about women and men"):
        with_tokens(split(tokenizer), TEXTS[1:2], tokenizer, 8)


def test_rows_weigh_less_where_the_teacher_differs(assembled):
    tokenizer = assembled("method=supervised").tokenizer
    logits = np.log([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6], [0.2, 0.8]])
    found = with_weights(split(tokenizer, logits), TEXTS, strength=10)[[0, 1, 2, 3]]["row_weights"]
    expected = np.array([1 / 6, 1, 1 / 6, 1])  # the counterpart of the last row is not in the split
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5)
    logits[2] = np.nan  # a file of answers lacks it
    np.testing.assert_allclose(with_weights(split(tokenizer, logits), TEXTS, 10)[[0]]["row_weights"], 1)
    with pytest.raises(KDError, match=r"found no counterpart among the rows; add transfer=\[counterfactual\]"):
        with_weights(split(tokenizer, logits), TEXTS[1:], 10)
