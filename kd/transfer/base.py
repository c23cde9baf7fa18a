"""The contract of a step that makes texts for a transfer set."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from kd.options.declared import Checked, CheckedFields, Count

FREQUENT = 50
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['\u2019-][^\W_]+)*")
"""A word. In scripts without blanks between words, each character counts as one."""


def words(text: str) -> list[str]:
    """Return the words of a text in small letters, without punctuation.

    >>> words("It's a well-made film !"), words("很好。")
    (["it's", 'a', 'well-made', 'film'], ['很', '好'])
    """
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class LabelledTexts:
    """The labelled training rows, from which steps learn and which they change.

    Args:
        texts: one a row.
        labels: the number of each row's label.
        checksum: of texts, labels and held_out.
        held_out: the sides of the texts for validation and test (`kd.data.splits.text_keys`), which a step must not
            read. kd leaves them out itself, but not pieces of them.
        names: of the labels.
    """

    texts: Sequence[str]
    labels: Sequence[int]
    checksum: str = ""
    held_out: frozenset[bytes] = frozenset()
    names: Sequence[str] = ()

    @cached_property
    def frequent(self) -> frozenset[str]:
        """The `FREQUENT` most frequent words of all texts. In any language, most of them are function words."""
        counts = Counter(word for text in self.texts for word in words(text))
        return frozenset(word for word, _ in counts.most_common(FREQUENT))


@dataclass(kw_only=True)
class Step(Checked, CheckedFields, ABC):
    """Makes texts for a transfer set. The teacher labels them later.

    A step of your own needs only `parts`, options as in a dataclass, and ``modules=[mylib]`` on the command line:

    >>> class Reversed(Step):
    ...     def parts(self, train, seed):
    ...         for start in range(0, len(train.texts), 1000):
    ...             chunk = train.texts[start : start + 1000]
    ...             yield (" ".join(reversed(text.split())) for text in chunk)

    Args:
        most: largest number of texts to use, a random sample of those made; null uses all.
        shortest, longest: number of words that a text may have; null sets no limit.
    """

    version: ClassVar[int] = 1
    """Grows when the code makes other texts from the same options, so that stored ones are made again."""

    selecting: ClassVar[tuple[str, ...]] = ("most", "shortest", "longest")
    """Options that choose among the texts made. If only these differ, stored texts are used again."""

    reads_names: ClassVar[bool] = False
    """Whether the names of the labels decide the texts, so that they count when stored texts are looked up."""

    most: Count | None = None
    shortest: Count = 1
    longest: Count | None = None

    @abstractmethod
    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        """Yield parts of a few thousand texts. A part is stored when it is finished.

        After an interruption, the stored parts are not iterated over again. So the texts of a part must not depend on
        other parts: random numbers come from `randomness`, with the number of the part.
        """

    def fault(self, train: LabelledTexts) -> Callable[[str], str | None]:
        """Return a function that says why a text is not used, as "too short"; it returns None if it is used."""

        def of_length(text: str) -> str | None:
            length = len(words(text))
            if length < self.shortest:
                return "too short"
            return "too long" if self.longest is not None and length > self.longest else None

        return of_length

    def require(self, train: LabelledTexts, made: Callable[[], Iterator[str]]) -> None:
        """Refuse the texts that this step has made, if they cannot help as a whole.

        Raises:
            KDError: saying what was expected and found.
        """

    def distance(self, train: LabelledTexts, made: Callable[[], Iterator[str]]) -> Callable[[str], float] | None:
        """Return a function by which ``most`` prefers texts: the smallest values win. None prefers none.

        Args:
            train: the labelled training rows.
            made: returns the texts that this step has made, from the beginning.
        """
        return None


def randomness(seed: int, *part: object) -> random.Random:
    """Return random numbers that depend on the seed and on the names or numbers of a part alone."""
    return random.Random("/".join(map(str, (seed, *part))))
