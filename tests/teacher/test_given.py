"""A function that fails half-way: what it has answered is kept, and it is asked for the rest only."""

import pandas
import pytest

from kd.errors import KDError
from kd.teacher import given
from kd.teacher.given import answers_of

TEXTS = [f"text {number}" for number in range(25)]
asked, broken = [], []


def teacher(texts):
    if len(asked) >= 20 and broken:
        raise broken[0]
    asked.extend(texts)
    return [{"good": int(text.split()[1]) / 100, "bad": 1 - int(text.split()[1]) / 100} for text in texts]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(given, "CHUNK", 10)
    asked.clear()
    broken[:] = [ConnectionError("the service is away")]


@pytest.mark.parametrize("error", [ConnectionError("the service is away"), KeyboardInterrupt()])
def test_the_next_call_asks_for_the_rest(tmp_path, error, caplog):
    broken[:] = [error]
    with pytest.raises(type(error)):
        answers_of(teacher, TEXTS, None, tmp_path)
    assert asked == TEXTS[:20] and "its answers for 20 texts are kept in memory" in caplog.text
    broken.clear()
    place = answers_of(teacher, [*TEXTS[::-1], "text 30"], None, tmp_path)
    assert asked == [*TEXTS[:20], *TEXTS[:19:-1], "text 30"], "each was asked for once"
    table = pandas.read_parquet(place)
    assert list(table["text"]) == [*TEXTS[::-1], "text 30"]
    assert list(table["probability_good"]) == [number / 100 for number in [*range(24, -1, -1), 30]]
    assert list((tmp_path / "given").iterdir()) == [place], "the answers of the first call are no longer needed"
    asked.clear()
    answers_of(teacher, TEXTS, None, tmp_path)
    assert asked == TEXTS, "a call that is done keeps nothing for the next"


def test_another_function_is_asked_for_everything(tmp_path):
    def other(texts):
        return [{"good": 0.5, "bad": 0.5 + len(asked) * 0}] * len(texts)

    def made(offset):  # the same code as another function's, with another default
        return lambda texts, offset=offset: teacher(texts)

    for failing in (made(0), made(1)):
        with pytest.raises(ConnectionError):
            answers_of(failing, TEXTS, None, tmp_path)
        assert len(asked) == 20
        asked.clear()
    table = pandas.read_parquet(answers_of(other, TEXTS, None, tmp_path))
    assert set(table["probability_good"]) == {0.5}


def test_a_wrong_answer_in_the_middle_keeps_those_before_it(tmp_path):
    def wrong(texts):
        asked.extend(texts)
        return [[0.5, 0.5]] * (len(texts) - (len(asked) > 10))

    with pytest.raises(KDError, match="expected an answer for each of 10 texts, got 9"):
        answers_of(wrong, TEXTS, ["a", "b"], tmp_path)
    assert asked == TEXTS[:20] and not (tmp_path / "given").exists()
    asked.clear()
    with pytest.raises(KDError, match="expected an answer for each of 5 texts, got 4"):
        answers_of(wrong, TEXTS, ["a", "b"], tmp_path)
    assert asked == TEXTS[10:]
