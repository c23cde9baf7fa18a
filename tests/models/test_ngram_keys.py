"""The numbers of n-grams of words and of characters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.errors import OptionError
from kd.models import BagConfig
from kd.models.ngram_keys import FACTOR, MOST, PRIME, in_buckets, require_range, spelled, word_keys

TOKENS = ["[PAD]", "[UNK]", "film", "##ly", "a", "##", "x" * 100]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 3))
def test_the_number_of_an_ngram_depends_on_its_words_alone(row, longest, padding):
    ids = torch.tensor([row + [0] * padding])
    mask = torch.arange(len(row) + padding).unsqueeze(0) < len(row)
    found = [key for key in word_keys(ids, mask, longest, FACTOR, PRIME)[0].tolist() if key >= 0]
    expected = []
    for n in range(1, longest + 1):
        for start in range(len(row) - n + 1):
            key = n
            for word in row[start : start + n]:
                key = (key * FACTOR + word + 1) % PRIME
            expected.append(key)
    assert found == expected
    rows = in_buckets(torch.tensor([-1, *found]), 10)
    assert rows[0] == 0 and ((rows[1:] >= 1) & (rows[1:] <= 10)).all()


def test_hashes_fill_the_buckets_evenly():
    ids = torch.randint(0, 30_000, (1, 20_000), generator=torch.Generator().manual_seed(0))
    rows = in_buckets(word_keys(ids, torch.ones_like(ids, dtype=torch.bool), 4, FACTOR, PRIME), 1000)
    counts = torch.bincount(rows[rows > 0], minlength=1001)[1:]
    assert counts.sum() == 4 * 20_000 - 6 and counts.min() > 30 and counts.max() < 150  # 80 each, give or take 9


def test_words_are_spelled_between_signs_and_pieces_have_no_first_one():
    table = spelled(TOKENS, {0, 1}, 3, 3)
    numbers = {ngram: number for number, ngram in enumerate(["<fi", "fil", "ilm", "lm>", "ly>", "<a>", "<##", "##>"])}
    assert (table[:2] == -1).all()
    for row, ngrams in {2: ["<fi", "fil", "ilm", "lm>"], 3: ["ly>"], 4: ["<a>"], 5: ["<##", "##>"]}.items():
        assert [number for number in table[row] if number >= 0] == [numbers[ngram] for ngram in ngrams]
    assert spelled(["x" * 9, "".join(map(chr, range(97, 197)))], (), 2, 3).shape[1] == MOST
    assert spelled(["[PAD]"], {0}, 3, 5).shape == (1, 0) and spelled(["a"], (), 5, 5).shape == (1, 0)


def test_a_range_rises():
    for right in (0, [3, 5], (2, 2)):
        require_range(right)
    with pytest.raises(OptionError, match=r"characters must be 0 or a range such as \[3, 5\], found \[5, 3\]"):
        require_range([5, 3])
    for wrong in (3, [0, 2], [3], [3, 99], "3-5"):
        with pytest.raises(OptionError, match="characters must be"):
            BagConfig(characters=wrong)
