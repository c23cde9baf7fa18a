"""Choose among the texts that the steps have made: usable, new, at most so many."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kd.data.splits import text_keys, unusable
from kd.errors import KDError
from kd.transfer.base import Step
from kd.transfer.parts import texts_at, texts_of
from kd.transfer.recipe import Known, TransferRecipe

REPEATED, NOT_CHOSEN = "repeated", "not chosen"
MOST_REPEATED = 0.9
"""Share of a step's texts from which it is refused."""
ENOUGH = 100
"""Number of texts from which the share of repeated ones means something."""


@dataclass
class Candidates:
    """The texts of one step that may be used.

    Args:
        step: its name.
        files: with all texts that it has made.
        places: of the usable ones among all texts, rising.
        ranks: random numbers that order them; a text has the same one in each transfer set of a seed.
        made: number of all texts.
        dropped: number of the others, by the reason.
    """

    step: str
    files: Sequence[Path]
    places: list[int] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    made: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def keep(self, chosen: Iterable[int]) -> None:
        """Keep only the texts with these numbers, in the order in which they were made."""
        numbers = sorted(chosen)
        self.dropped[NOT_CHOSEN] += len(self.places) - len(numbers)
        self.places = [self.places[number] for number in numbers]
        self.ranks = [self.ranks[number] for number in numbers]

    def texts(self) -> Iterator[str]:
        """Yield the usable texts."""
        return texts_at(self.files, self.places)

    def counts(self) -> dict[str, Any]:
        """Return how many texts were made, are used and were dropped."""
        dropped = {why: number for why, number in self.dropped.items() if number}
        return {"made": self.made, "used": len(self.places), "dropped": dropped}


def choose(recipe: TransferRecipe, known: Known, made: Mapping[str, Sequence[Path]]) -> list[Candidates]:
    """Return the texts to use, step by step.

    Args:
        recipe: the steps, and how many texts to use.
        known: the rows of the run, whose texts are not used.
        made: the files with the texts of each step.

    Raises:
        KDError: a step has made too few texts, repeats itself, or has made texts of another language; or none of the
            texts can be used.
    """
    met, found = set(known.keys), []
    for name, files in made.items():
        candidates = usable(recipe, known, name, files, met)
        require_sound(candidates)
        recipe.steps[name].require(known.train, partial(texts_of, files))
        limit(candidates, recipe.steps[name], known)
        found.append(candidates)
    if recipe.rows is not None:
        limit_all(found, recipe.rows)
    if not any(each.places for each in found):
        reasons = sum((each.dropped for each in found), Counter[str]())
        raise KDError(
            "transfer: expected texts that are not among the rows of the run, found none among "
            f"{sum(each.made for each in found):,} made by {', '.join(made)} ({in_words(reasons)}); give other "
            "documents, or other options"
        )
    return found


def usable(recipe: TransferRecipe, known: Known, name: str, files: Sequence[Path], met: set[bytes]) -> Candidates:
    """Return the texts of a step that can be used and are new.

    Args:
        recipe, known: as in `choose`.
        name: of the step.
        files: with its texts.
        met: the keys of the texts before; those of the new ones are added.
    """
    fault, seed = recipe.steps[name].fault(known.train), f"{recipe.seed}/".encode()
    found = Candidates(name, files)
    for number, text in enumerate(texts_of(files)):
        found.made += 1
        if why := unusable(text) or fault(text):
            found.dropped[why] += 1
            continue
        key, side = text_keys(text)
        if side in known.train.held_out:
            found.dropped["in validation or test"] += 1
        elif key in met:
            found.dropped["in train" if key in known.keys else REPEATED] += 1
        else:
            met.add(key)
            found.places.append(number)
            found.ranks.append(int.from_bytes(hashlib.sha256(seed + key).digest()[:8], "big"))
    return found


def require_sound(candidates: Candidates) -> None:
    """Refuse the texts of a step that are too few or mostly the same.

    Raises:
        KDError: naming the step.
    """
    name, made, dropped = f"transfer.{candidates.step}", candidates.made, candidates.dropped
    if made < 2:
        raise KDError(f"{name}: expected at least two texts, found {made}; give more or longer documents")
    if made >= ENOUGH and dropped[REPEATED] > MOST_REPEATED * made:
        raise KDError(
            f"{name}: expected different texts, found {dropped[REPEATED]:,} of {made:,} that repeat others; make "
            "fewer, or give other options"
        )


def limit(candidates: Candidates, step: Step, known: Known) -> None:
    """Keep the ``most`` texts of a step: the nearest, or those with the smallest ranks as a random sample."""
    numbers = range(len(candidates.places))
    if step.most is None or len(numbers) <= step.most:
        return
    order: Sequence[float] = candidates.ranks
    if distance := step.distance(known.train, partial(texts_of, candidates.files)):
        order = list(map(distance, candidates.texts()))
    candidates.keep(heapq.nsmallest(step.most, numbers, key=lambda number: (order[number], candidates.ranks[number])))


def limit_all(found: Sequence[Candidates], rows: int) -> None:
    """Keep the texts with the smallest ranks. So a smaller transfer set is a part of a larger one."""
    ranks = ((rank, step, number) for step, each in enumerate(found) for number, rank in enumerate(each.ranks))
    smallest = heapq.nsmallest(rows, ranks)
    for step, each in enumerate(found):
        each.keep(number for _, chosen, number in smallest if chosen == step)


def in_words(counts: Mapping[str, int]) -> str:
    """Return numbers with their names.

    >>> in_words({"too short": 1200, "in train": 3})
    '1,200 too short, 3 in train'
    """
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())
