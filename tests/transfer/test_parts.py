"""The texts of a step on disk."""

import pytest

from kd.errors import KDError
from kd.transfer.base import Step
from kd.transfer.parts import chunks, is_whole, make_parts, texts_at, texts_in_part, texts_of


class Counting(Step):
    """Notes which parts are made."""

    def __init__(self, parts=3):
        super().__init__()
        self.number, self.made = parts, []

    def parts(self, train, seed):
        for number in range(self.number):
            yield self.texts(number, seed)

    def texts(self, number, seed):
        self.made.append(number)
        yield from (f"text {number} {place} {seed}" for place in range(3))


class Wrong(Step):
    def parts(self, train, seed):
        yield ["fine", 5]


def test_finished_parts_are_not_made_again(train, tmp_path):
    first = Counting()
    files = make_parts("counting", first, train, 7, tmp_path / "key")
    files[1].write_bytes(b"damaged")
    (tmp_path / "key" / ".part-00009.arrow.leftover").write_bytes(b"half")
    again = Counting()
    assert make_parts("counting", again, train, 7, tmp_path / "key") == files
    assert (first.made, again.made) == ([0, 1, 2], [1])
    assert texts_in_part(files[1]) == ["text 1 0 7", "text 1 1 7", "text 1 2 7"]
    assert not list((tmp_path / "key").glob(".part-*"))


def test_other_values_are_refused(train, tmp_path):
    with pytest.raises(KDError, match=r"transfer.wrong: expected a step that yields texts"):
        make_parts("wrong", Wrong(), train, 0, tmp_path)


def test_a_damaged_file_is_not_whole(train, tmp_path):
    [file] = make_parts("counting", Counting(1), train, 0, tmp_path)
    assert is_whole(file) and not is_whole(tmp_path / "none")
    file.write_bytes(file.read_bytes()[:-40])
    assert not is_whole(file)


def test_texts_at_places(train, tmp_path):
    files = make_parts("counting", Counting(), train, 0, tmp_path)
    everything = list(texts_of(files))
    assert len(everything) == 9
    assert list(texts_at(files, [0, 4, 8])) == [everything[place] for place in (0, 4, 8)]
    assert list(texts_at(files, [])) == []


def test_chunks():
    assert list(chunks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
