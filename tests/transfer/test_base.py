"""What every step has: lengths, random numbers of its own."""

import pytest

from kd.errors import KDError
from kd.options.declared import Count, options_of
from kd.transfer.base import LabelledTexts, Step, randomness, words


class Reversed(Step):
    def parts(self, train, seed):
        yield (" ".join(reversed(text.split())) for text in train.texts)


def test_a_step_of_ten_lines_is_enough(train):
    made = [list(part) for part in Reversed().parts(train, 0)]
    assert made[0][0].split() == train.texts[0].split()[::-1]
    assert set(options_of(Reversed)) == {"most", "shortest", "longest"}


class Repeated(Reversed):
    def __init__(self, times: Count = 2, most: Count | None = None):
        super().__init__(most=most)
        self.times = times


def test_options_of_a_users_constructor_are_checked():
    assert options_of(Repeated)["times"].expected == "a whole number of at least 1" and Repeated(most=3).most == 3
    for wrong in ({"times": 0}, {"most": 0}):
        with pytest.raises(KDError, match="must be a whole number of at least 1"):
            Repeated(**wrong)


def test_length_is_counted_in_words(train):
    fault = Reversed(shortest=2, longest=3).fault(train)
    assert [fault(text) for text in ("good !", "a film", "a b c", "a b c d")] == ["too short", None, None, "too long"]


def test_words_of_scripts_without_blanks():
    assert words("服务很好。Wi-Fi!") == ["服", "务", "很", "好", "wi-fi"]


def test_random_numbers_depend_on_seed_and_part():
    draws = {randomness(*part).random() for part in ((0, "a", 0), (0, "a", 1), (1, "a", 0), (0, "b", 0))}
    assert len(draws) == 4
    assert randomness(3, "a").random() == randomness(3, "a").random()


def test_frequent_words(train):
    assert "film" in train.frequent
    rare = [f"word{number}" for number in range(60)]
    assert {"it's", "good"} < LabelledTexts(["It's GOOD ."] * 2 + rare, [1] * 62).frequent
    assert len(LabelledTexts(rare, [1] * 60).frequent) == 50
