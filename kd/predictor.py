"""Load a trained student from disk and classify texts with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import kd.models  # noqa: F401  registers the students
from kd.data.batching import EncodedSplit, LengthBucketSampler, tokenize
from kd.errors import KDError
from kd.measure.inference import all_logits
from kd.run.directory import RunDirectory
from kd.storage.model_check import check_pair
from kd.storage.model_folder import load_classifier, load_tokenizer, longest_text, require_one_label

LONGEST = 4096
"""Largest number of tokens of a text, for models without a limit of their own."""


@dataclass(frozen=True)
class Predictor:
    """A classifier with its tokenizer.

    Args:
        model: the classifier.
        tokenizer: its tokenizer.
        max_length: longer texts are truncated to this number of tokens.
        text_column: the name of the column of the texts in training.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    text_column: str = "text"

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """Load a run directory or a Hugging Face folder.

        Raises:
            KDError: the path is neither of them, the run is not done, the model cannot be read, or it does not
                classify texts into one label each.
        """
        folder, text = path, "text"
        if RunDirectory.is_one(path) or not (path / "config.json").is_file():
            run = RunDirectory.finished(path, ("config.yaml", "model"))
            folder, text = run.model, run.config()["data"].get("text") or "text"
        if not folder.is_dir():
            raise KDError(f"expected the model of the run in '{folder}', found no such folder; train it again")
        transformers.utils.logging.disable_progress_bar()
        transformers.logging.set_verbosity_error()
        model, tokenizer = load_classifier(folder), load_tokenizer(folder)
        longest = min(tokenizer.model_max_length, longest_text(model.config) or LONGEST)
        longest = min(longest, LONGEST)
        if folder == path:  # a run of before may have kept the problem_type of its checkpoint, but used a softmax
            require_one_label(str(folder), model.config)
        check_pair(folder, model, tokenizer, longest)
        return cls(model, tokenizer, longest, text)

    @property
    def label_names(self) -> list[str]:
        """Return the labels in the order of the logits."""
        names = cast(dict[int, str], self.model.config.id2label)
        return [names[number] for number in range(len(names))]

    def logits(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return logits ``[N, C]``, float32, row i for text i.

        Raises:
            KDError: a logit is not finite.
        """
        if not texts:
            return np.empty((0, len(self.label_names)), np.float32)
        tokens = tokenize(self.tokenizer, texts, self.max_length)
        split = EncodedSplit(tokens, np.full(len(tokens), -100), self.tokenizer.pad_token_id)
        rows = LengthBucketSampler(tokens.lengths, batch_size)
        found = all_logits(self.model, (split[batch] for batch in rows), len(tokens))
        if len(bad := np.flatnonzero(~np.isfinite(found).all(axis=1))):
            shown = texts[bad[0]][:60]
            raise KDError(f"expected finite logits, found others for {len(bad)} texts, first {shown!r}; train it again")
        return found

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return probabilities ``[N, C]``; each row sums to 1."""
        return torch.from_numpy(self.logits(texts, batch_size)).softmax(dim=1).numpy()
