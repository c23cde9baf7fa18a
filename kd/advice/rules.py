"""The rules that choose what to try: from facts about data and teacher to candidates, each with its reasons.

Needs no torch. A rule is an ``if`` with a sentence. Those that rest on a measurement name the page that has it; the
others are conventions, and the search decides about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

FEW_LABELS, FEW_ROWS, MANY_ROWS, MUCH_TEXT = 1_000, 10_000, 50_000, 20_000
GROUPS = ("tokenizer", "embeddings", "transfer")
"""Groups of Hydra that a variation may set."""
FILM_REVIEWS = ("rotten_tomatoes", "sst2", "imdb")
"""Data sets whose style the steps of ``transfer=[imdb_sentences]`` have."""


Pairs = tuple[tuple[str, str], ...]
"""Options of the command line, each a key and its value."""


def words_of(pairs: Iterable[Sequence[str]]) -> list[str]:
    """Return options, each a key and its value, as words of the command line."""
    return [f"{key}={value}" for key, value in pairs]


@dataclass(frozen=True)
class Facts:
    """What the rules read.

    Args:
        data: name of the data set.
        rows, labelled: training rows, and those that have a label.
        classes: number of labels.
        words: mean number of words in a text.
        spaced: words are separated by blanks.
        unlabelled: rows without a label, such as those of ``data.unlabelled``.
        teacher: none; answers (a file); tuned (it is trained or on disk already); untuned (it must be fine-tuned).
        layers: those of a teacher that is a single encoder, which a student can take; 0 for other teachers.
        words_at_hand: the teacher has a tokenizer and a word table to start from.
        latin: most letters are Latin ones.
        labels: false if the labels are the teacher's own (``--no-labels``).
        most_texts, most_epochs: what the time allows of a transfer set, and of a network's epochs without one; None
            without a limit.
    """

    data: str
    rows: int
    labelled: int
    classes: int
    words: float
    spaced: bool
    unlabelled: int
    teacher: Literal["none", "answers", "tuned", "untuned"]
    layers: int
    words_at_hand: bool
    latin: bool = True
    labels: bool = True
    most_texts: int | None = None
    most_epochs: int | None = None


@dataclass(frozen=True)
class Candidate:
    """One setting to try.

    Args:
        name: of its file in the study.
        choices: (group, choice) for Hydra's groups, in their order.
        options: (key, value) as they are written on the command line.
        why: the reasons, a sentence each.
    """

    name: str
    choices: Pairs
    options: Pairs = ()
    why: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        return words_of((*self.choices, *self.options))

    def get(self, key: str) -> str | None:
        """Return the value of an option or the choice of a group; None if the candidate does not set it."""
        return dict((*self.choices, *self.options)).get(key)

    def but(self, name: str, why: str, *options: tuple[str, str]) -> Candidate:
        """Return the same with other options and one more reason."""
        groups = dict(self.choices) | {key: value for key, value in options if key in GROUPS}
        merged = dict(self.options) | {key: value for key, value in options if key not in GROUPS}
        return replace(
            self, name=name, choices=tuple(groups.items()), options=tuple(merged.items()), why=(*self.why, why)
        )


FLOOR = "the floor: a network that does not beat a bag of bigrams is not worth its cost (docs/students.md)"
STUDENTS = {
    "textcnn": "filters over 3 to 5 words, the best network on Rotten Tomatoes for its time (docs/transfer.md)",
    "bilstm": "reads the whole text in order; as good as the TextCNN there, and slower",
    "dan": "a mean of word vectors: the fastest network, without word order",
}


def shortlist(facts: Facts) -> list[Candidate]:
    """Return 3 to 10 candidates; the first is the bag, and the most promising network follows it."""
    method, shared, _ = taught(facts)
    own = () if facts.spaced else (("student.characters", "[1,3]"),)
    bag = Candidate("bag", (("student", "bag"), ("method", "supervised")), own, (FLOOR,))
    if own:
        bag = bag.but("bag", "no blanks between words: it counts n-grams of characters too")
    bags = [bag]
    if method == "distillation":
        choices, reason = (("student", "bag"), ("method", method)), "the bag fitted to the teacher's probabilities"
        bags = [*bags[: facts.labels], Candidate("bag-taught", choices, (*shared, *own), (reason,))]
    texts, options, reason = transfer(facts)
    networks = [network(name, text, facts, method, shared) for name, text in STUDENTS.items()]
    if texts:
        more = [one.but(f"{one.name}-texts", reason, *options, *epochs(facts.rows + texts)) for one in networks]
        networks = [*more[:2], networks[0], more[2], networks[1]]
    found = [*bags, *networks, *variations(facts, method, networks)]
    return found[:10]


def taught(facts: Facts) -> tuple[str, Pairs, tuple[str, ...]]:
    """Return the method, its alpha and temperature, and the reasons, which hold for all candidates."""
    if facts.teacher == "none":
        return "supervised", (), ()
    temperature = "4.0" if facts.classes > 2 else "2.0"
    why = [f"temperature {temperature}: " + ("several wrong classes to tell apart" if facts.classes > 2 else "default")]
    if not facts.labels:
        alpha, reason = "1.0", "there are no labels beside the teacher's"
    elif facts.teacher == "answers":
        alpha, reason = "0.5", "how good a file of answers is, is not known"
    else:
        alpha, reason = "0.9", "better than 0.5 on validation in the quickstart (conf/experiment/quickstart.yaml)"
    why.append(f"alpha {alpha}: {reason}")
    if facts.labels and facts.labelled < FEW_LABELS:
        why.append(f"only {facts.labelled} labels: the teacher's answers bring most (docs/data.md#few-labels)")
    if facts.words_at_hand or facts.latin:
        whose = "the teacher's" if facts.words_at_hand else "MiniLM's, as a file of answers has none (docs/teachers.md)"
        why.append(f"the word tables of networks start from {whose}")
    return "distillation", (("alpha", alpha), ("temperature", temperature)), tuple(why)


def network(name: str, text: str, facts: Facts, method: str, shared: Pairs) -> Candidate:
    """Return a student with word vectors."""
    choices: Pairs = (("student", name), ("method", method))
    options = (*shared, *epochs(facts.rows, facts.most_epochs))
    if facts.teacher == "none":
        return Candidate(name, (*choices, ("tokenizer", "words"), ("embeddings", "random")), options, (text,))
    if facts.words_at_hand or not facts.latin:
        return Candidate(name, choices, options, (text,))
    choices = (*choices, ("tokenizer", "restricted"), ("embeddings", "pca"))
    return Candidate(name, choices, (*options, ("teacher.words_of", "asset:all-minilm-l6-v2")), (text,))


def epochs(rows: int, most: int | None = None) -> Pairs:
    """Return the number of epochs: more for few rows, whose epochs are short, and no more than the time allows."""
    number = 10 if rows < FEW_ROWS else 5 if rows < MANY_ROWS else 3
    return (("trainer.max_epochs", str(number if most is None else max(2, min(number, most)))),)


def transfer(facts: Facts) -> tuple[int, Pairs, str]:
    """Return the number of texts that a step of ``transfer`` adds, its options, and the reason; 0 if none fits."""
    most = 40_000 if facts.most_texts is None else facts.most_texts // 1_000 * 1_000
    if facts.teacher in ("none", "answers") or facts.unlabelled >= MUCH_TEXT or most < 2_000:
        return 0, (), ""
    if facts.data in FILM_REVIEWS:
        reason = "with sentences of film reviews: 60,000 brought the TextCNN 3.7 points on test (docs/transfer.md)"
        return most, (("transfer", "[imdb_sentences]"), ("transfer_rows", str(most))), reason
    if facts.spaced and facts.rows < MANY_ROWS:
        texts = min(most, 4 * facts.rows)
        reason = "with edited copies of the rows, as no other text is known (Wei and Zou 2019); not measured before"
        return texts, (("transfer", "[edits]"), ("transfer_rows", str(texts))), reason
    return 0, (), ""


def variations(facts: Facts, method: str, networks: Sequence[Candidate]) -> list[Candidate]:
    """Return further candidates: the best guess without its teacher or with other settings, and larger tables."""
    found, best = list[Candidate](), networks[0]
    choices: Pairs
    own: Pairs
    if method == "distillation" and facts.labels:
        other = "0.5" if best.get("alpha") == "0.9" else "0.9"
        found.append(best.but(f"{best.name}-alpha", f"the same with alpha {other}", ("alpha", other)))
    if facts.words_at_hand and facts.labelled < FEW_ROWS:
        reason = "the words start from the teacher's sentence vectors, which know the task (docs/students.md)"
        found.append(best.but(f"{best.name}-encoded", reason, ("embeddings", "encoded")))
    if facts.layers >= 3:
        choices = (("student", "truncated"), ("method", "distillation"))
        alpha = ((key, value) for key, value in best.options if key in ("alpha", "temperature"))
        own = (
            *alpha,
            ("student.layers", f"[0,{facts.layers // 3},{2 * facts.layers // 3}]"),
            ("optim.optimizer.lr", "5e-5"),
            ("trainer.max_epochs", "3"),
        )
        found.append(Candidate("truncated", choices, own, ("three layers of the teacher: large, slow, accurate",)))
    if facts.unlabelled >= MUCH_TEXT:
        choices = (("student", "ngrams"), ("method", method))
        options = tuple((key, value) for key, value in best.options if key in ("alpha", "temperature"))
        reason = f"{facts.unlabelled:,} texts without a label: enough for a table of n-grams (Ye et al. 2022)"
        found.append(Candidate("ngrams", choices, (*options, *epochs(facts.rows, facts.most_epochs)), (reason,)))
    if method == "distillation" and facts.labels and facts.labelled >= FEW_LABELS:
        alone = next(one for one in networks if not one.name.endswith("-texts"))
        choices = tuple((key, "supervised" if key == "method" else value) for key, value in alone.choices)
        own = epochs(facts.rows, facts.most_epochs)
        found.append(Candidate(f"{alone.name}-alone", choices, own, ("without the teacher's answers",)))
    return found


def smaller(one: Candidate) -> Candidate | None:
    """Return a network with narrower word vectors and a smaller vocabulary, for a limit of size; None for others."""
    if one.get("student") not in STUDENTS:
        return None
    options = (("student.embedding_size", "32"), ("tokenizer.max_size", "8000"))
    return one.but(f"{one.name}-small", "32 wide and at most 8,000 words, because of the limit", *options)
