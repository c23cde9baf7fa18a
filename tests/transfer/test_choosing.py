"""Which texts are used, and why others are not."""

import pytest

from kd.errors import KDError
from kd.transfer.base import Step
from kd.transfer.choosing import choose
from kd.transfer.documents import Documents
from kd.transfer.parts import make_parts
from kd.transfer.recipe import Known, TransferRecipe


class Given(Step):
    """Yields these texts."""

    def __init__(self, texts, most=None, shortest=1, nearest=False):
        super().__init__(most=most, shortest=shortest)
        self.given, self.nearest = texts, nearest

    def parts(self, train, seed):
        yield self.given

    def distance(self, train, made):
        return (lambda text: len(text)) if self.nearest else None


@pytest.fixture
def chosen(splits, tmp_path_factory):
    """A function that returns the candidates of some steps, by name."""
    known = Known.of(splits)

    def chosen(rows=None, seed=0, **steps):
        recipe, place = TransferRecipe(steps, {}, seed, rows, "text"), tmp_path_factory.mktemp("parts")
        made = {name: make_parts(name, step, known.train, seed, place / name) for name, step in steps.items()}
        return {each.step: each for each in choose(recipe, known, made)}

    return chosen


NEW = [f"a new text of number {number} ." for number in range(200)]


def test_texts_of_the_run_are_left_out(chosen, splits):
    held_out, train = splits.test["text"][0], splits.train["text"][0]
    texts = [*NEW[:3], f"{held_out.upper()} !", f"  {train.upper()}", NEW[0].title(), "", "short"]
    found = chosen(one=Given(texts, shortest=2))["one"]
    assert list(found.texts()) == NEW[:3]
    assert found.counts() == {
        "made": 8,
        "used": 3,
        "dropped": {"in validation or test": 1, "in train": 1, "repeated": 1, "empty": 1, "too short": 1},
    }


def test_a_later_step_does_not_repeat_an_earlier_one(chosen):
    found = chosen(one=Given(NEW[:3]), two=Given(NEW[:5]))
    assert [list(found[name].texts()) for name in ("one", "two")] == [NEW[:3], NEW[3:5]]


def test_the_nearest_come_first(chosen):
    found = chosen(one=Given(NEW, most=10, nearest=True))["one"]
    assert list(found.texts()) == NEW[:10]
    assert found.dropped["not chosen"] == 190


def test_a_random_sample_depends_on_the_seed_alone(chosen):
    first, again, other = (set(chosen(seed=seed, one=Given(NEW, most=20))["one"].texts()) for seed in (0, 0, 1))
    assert first == again != other and len(first) == len(other) == 20
    assert set(chosen(one=Given(NEW[::-1], most=20))["one"].texts()) == first


@pytest.mark.parametrize("sizes", [(1, 2), (20, 150), (199, 250)])
def test_a_smaller_set_is_a_part_of_a_larger_one(chosen, sizes):
    sets = []
    for rows in sizes:
        found = chosen(rows=rows, one=Given(NEW[:120]), two=Given(NEW[120:]))
        sets.append({text for each in found.values() for text in each.texts()})
        assert len(sets[-1]) == min(rows, 200)
    assert sets[0] <= sets[1]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Given([]), r"transfer.one: expected at least two texts, found 0; give more"),
        (Given(["a single line"]), r"expected at least two texts, found 1"),
        (Given(NEW[:5] * 40), r"expected different texts, found 195 of 200 that repeat others; make fewer"),
        (Given(["x", "y"], shortest=3), r"found none among 2 made by one \(2 too short\); give other documents"),
    ],
)
def test_what_is_refused(chosen, step, said):
    with pytest.raises(KDError, match=said) as error:
        chosen(one=step)
    assert "\n" not in str(error.value)


def test_texts_of_the_run_alone_are_refused(chosen, splits):
    with pytest.raises(KDError, match=r"found none among .* in validation or test"):
        chosen(one=Given([*splits.test["text"], *splits.train["text"]]))


@pytest.mark.parametrize("text", ["服务很好，房间干净。", "Der Zug fährt heute leider nicht.", "поезд опоздал ."])
def test_another_language_is_refused(chosen, tmp_path, text):
    (tmp_path / "corpus.txt").write_text("\n".join(f"{text} {number}" for number in range(20)))
    with pytest.raises(KDError, match=r"expected documents in the language of the training rows"):
        chosen(one=Documents(str(tmp_path / "corpus.txt")))
    assert chosen(one=Documents(str(tmp_path / "corpus.txt"), known_words=0))["one"].made == 40
