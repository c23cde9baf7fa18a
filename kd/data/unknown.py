"""Measure how much of some texts a tokenizer does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SAMPLES, SAMPLE_ROWS, CHARACTERS = 20, 25, 1000
"""The texts that are looked at: so many groups of neighbours, evenly spaced, the rows in each, and the beginning of
each text."""
HIGH = 1 / 3
"""Share of unknown pieces from which a warning is logged. In 200 short texts, 30 % of the words occur only once."""
EXAMPLES = 3


@dataclass(frozen=True)
class Unknown:
    """The pieces of some texts that a tokenizer does not know.

    Args:
        share: their part of all pieces, without special tokens.
        examples: the most frequent of them.
    """

    share: float
    examples: tuple[str, ...] = ()

    def warning(self, whose: str) -> str | None:
        """Return what to do, in words, if the share is high; ``whose`` tokenizer it is, such as "the student's"."""
        if self.share < HIGH:
            return None
        return (
            f"{100 * self.share:.0f} % of the pieces of the training texts are unknown to {whose} tokenizer, for "
            f"example {', '.join(map(repr, self.examples))}, and the model reads the same piece for all of them; "
            "choose a tokenizer for the language and the letters of these texts, or add the tokenizer's files to the "
            "model's folder"
        )


def unknown_pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Unknown:
    """Return the share of unknown pieces in a sample of the texts.

    A tokenizer of bytes knows every text, and its share is 0.
    """
    unknown, total, mark = Counter[str](), 0, tokenizer.unk_token_id
    if mark is None:
        return Unknown(0.0)
    offsets = isinstance(tokenizer, PreTrainedTokenizerFast)
    for group in _sample(texts):
        found = tokenizer(group, add_special_tokens=False, return_offsets_mapping=offsets, verbose=False)
        total += sum(map(len, found["input_ids"]))
        for row, (text, ids) in enumerate(zip(group, found["input_ids"], strict=True)):
            for place, number in enumerate(ids):
                if number == mark:
                    start, end = found["offset_mapping"][row][place] if offsets else (0, len(text))
                    unknown[text[start:end][:30]] += 1
    examples = tuple(piece for piece, _ in unknown.most_common(EXAMPLES))
    return Unknown(unknown.total() / total if total else 0.0, examples)


def _sample(texts: Sequence[str]) -> list[list[str]]:
    """Return groups of texts from the whole length; all texts, if they are few."""
    step = max(SAMPLE_ROWS, len(texts) // SAMPLES)
    groups = (list(texts[start : start + SAMPLE_ROWS]) for start in range(0, len(texts), step))
    return [[text[:CHARACTERS] for text in group] for group in groups if group]
