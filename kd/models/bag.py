"""A bag of word n-grams with a linear classifier: the baseline that a neural student has to beat.

F n-grams, C labels, M n-grams of a row. The n-grams are found inside `Bag.logits` from the token ids alone, so that a
saved model needs nothing of kd before it.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd.errors import KDError, OptionError
from kd.models.fitted import FittedConfig, FittedStudent, Rows
from kd.models.ngram_keys import Characters, Speller, require_range, word_keys
from kd.options.declared import Count, CountOrNone, Positive

log = logging.getLogger(__name__)

GRID = (0.03, 0.1, 0.3, 1.0, 3.0)
"""The inverse penalties of which the validation rows choose one."""
NO_NGRAM = np.iinfo(np.int64).max
"""The last key of the table. No n-gram has it."""


class BagConfig(FittedConfig):
    """The options of a `Bag`.

    Args:
        ngrams: number of words in the longest n-gram.
        weighting: naive_bayes counts an n-gram once in a row and scales it by the log ratio of its shares in a class
            and outside; tfidf counts each occurrence, scales it by the rarity of the n-gram, and divides by the row's
            norm.
        min_count: an n-gram must occur in this many training rows to be in the table.
        smoothing: number of rows that are added to the count of each n-gram, with naive_bayes.
        inverse_penalty: weight of the rows against the L2 penalty; null takes the best on the validation rows.
        characters: lengths of the character n-grams that are counted too, as [3, 5]; 0 counts none.
        features: number of n-grams in the table; the fit sets it.
        spelled: number of character n-grams of the longest word; set when the student is made.
    """

    model_type = "kd-bag"

    ngrams: Count = 2
    weighting: Literal["naive_bayes", "tfidf"] = "naive_bayes"
    min_count: Count = 1
    smoothing: Positive = 1.0
    inverse_penalty: Positive | None = None
    characters: Characters = 0
    features: CountOrNone = 0
    spelled: CountOrNone = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        longest = max(n for n in range(64) if (self.vocab_size + 1) ** n < NO_NGRAM)
        if self.ngrams > longest:  # the number of an n-gram has to fit into 64 bits
            expected = f"at most {longest} for a vocabulary of {self.vocab_size} tokens"
            raise OptionError("ngrams", expected, self.ngrams)
        require_range(self.characters)
        if self.characters:
            self.characters = list(self.characters)  # type: ignore[assignment]  # as a saved configuration is read


class Bag(FittedStudent, Speller):
    """The sum of a weight for each n-gram of the text.

    Source: Wang and Manning, Baselines and Bigrams, 2012, https://aclanthology.org/P12-2018
    """

    config_class = BagConfig
    config: BagConfig
    _input_embed_layer = "table"  # for get_input_embeddings
    keys: Tensor
    rarity: Tensor

    def __init__(self, config: BagConfig):
        super().__init__(config)
        rows, labels = config.features + 1, cast(int, config.num_labels)
        # The last row stands for every n-gram that the fit did not see.
        self.register_buffer("keys", torch.full((rows,), NO_NGRAM))
        self.table = nn.Embedding(rows, labels, padding_idx=rows - 1)
        self.bias = nn.Parameter(torch.zeros(labels))
        if config.weighting == "tfidf":
            self.register_buffer("rarity", torch.zeros(rows))
        self.new_spelling(config.characters, config.vocab_size, config.spelled)
        self.post_init()

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        keys = word_keys(ids, mask, self.config.ngrams, self.config.vocab_size + 1)
        if self.config.characters:  # numbered below the words, from -2 downwards
            keys = torch.cat([keys, -2 - self.character_keys(ids, mask)], dim=1)
        found = self._places(keys).sort(dim=1).values
        again = F.pad(found[:, 1:] == found[:, :-1], (1, 0))
        if self.config.weighting == "naive_bayes":
            return self.table(found.masked_fill(again, len(self.keys) - 1)).sum(dim=1) + self.bias
        number = (~again).cumsum(dim=1) - 1  # of the n-gram in its row; equal n-grams have the same
        counts = torch.zeros_like(found).scatter_add(1, number, torch.ones_like(found)).gather(1, number)
        norm = (self.rarity[found].square() * counts).sum(dim=1, keepdim=True).sqrt()
        return self.table(found).sum(dim=1) / norm.clamp(min=1e-9) + self.bias

    def _places(self, keys: Tensor) -> Tensor:
        """Return the row of the table for each key; the last row for a key that it does not hold."""
        last = len(self.keys) - 1
        if torch.compiler.is_exporting():  # ONNX has no searchsorted
            places = torch.zeros_like(keys)
            for step in (2**power for power in reversed(range(last.bit_length()))):
                below = self.keys[(places + step - 1).clamp(max=last)] < keys
                places = torch.where(below, places + step, places)
        else:
            places = torch.searchsorted(self.keys, keys)
        return torch.where(self.keys[places] == keys, places, last)

    def fit(self, train: Rows, validation: Rows, special: frozenset[int]) -> None:
        from kd.models import ngrams  # with scikit-learn, which only a fit needs

        config, base = self.config, self.config.vocab_size + 1
        spelling = None if self.spelling is None else self.spelling.numpy()
        found, held_out = (
            ngrams.occurrences(each.tokens, special, config.ngrams, base, spelling) for each in (train, validation)
        )
        keys = ngrams.frequent(found, config.min_count)
        if len(keys) == 0:
            raise KDError(
                f"student.min_count={config.min_count} leaves no n-gram of {len(train.tokens)} training rows; lower it "
                "or use student=majority"
            )
        counts, theirs = ngrams.counts(found, keys, len(train.tokens)), None
        weights: ngrams.Weights
        if config.weighting == "naive_bayes":
            weights = ngrams.NaiveBayes(counts, train.targets, config.smoothing)
        else:
            weights = ngrams.TfIdf(counts, train.targets)
        features = weights.features(counts)
        theirs = weights.features(ngrams.counts(held_out, keys, len(validation.tokens)))
        gold, best = validation.targets.argmax(axis=1), -1.0
        for penalty in GRID if config.inverse_penalty is None else (config.inverse_penalty,):
            table, bias = weights.table(features, train.targets, penalty)
            accuracy = float(((theirs @ table + bias).argmax(axis=1) == gold).mean())
            log.info("bag: %.4f of the validation rows are correct with inverse_penalty=%g", accuracy, penalty)
            if accuracy > best:  # of equals the first, which has the smallest weights
                best, chosen, kept = accuracy, penalty, (table, bias)
        self._take(keys, *kept, weights.rarity if isinstance(weights, ngrams.TfIdf) else None)
        config.inverse_penalty = chosen
        log.info("bag: %d n-grams, student.inverse_penalty=%g", len(keys), chosen)

    def _take(self, keys: np.ndarray, table: np.ndarray, bias: np.ndarray, rarity: np.ndarray | None) -> None:
        """Set the table to these n-grams, and a last row of zeros for all others."""
        self.config.features = len(keys)
        self.keys = torch.from_numpy(np.append(keys, NO_NGRAM))
        if rarity is not None:
            table = table * rarity[:, None]
            self.rarity = torch.from_numpy(np.append(rarity, 0.0)).float()
        rows = torch.from_numpy(np.vstack([table, np.zeros((1, table.shape[1]))])).float()
        self.table = nn.Embedding(rows.shape[0], rows.shape[1], padding_idx=len(keys), _weight=rows)
        self.bias.data = torch.from_numpy(bias).float()
