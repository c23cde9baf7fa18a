"""A teacher's outputs that are computed in pieces, by several processes."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from kd.data.batching import Ragged
from kd.features.feature import Feature
from kd.teacher import cache as teacher_cache
from kd.teacher.ready import ReadyTeacher, Wanted
from tests.conftest import make_reviews
from tests.data.writing import flip


@pytest.fixture
def ready(teacher_folder) -> ReadyTeacher:
    return ReadyTeacher("tiny", teacher_folder, 24, 32, {})


@pytest.mark.parametrize("damage", [False, True])
def test_an_ordinary_cache_is_made_in_pieces(ready, tmp_path, monkeypatch, damage):
    texts = [text for text, _ in make_reviews(250, seed=9)]
    expected = ready.live_logits(texts)
    whole, _ = ready.cached(Wanted(texts, "train", tmp_path / "whole"))
    np.testing.assert_array_equal(whole["logits"], expected)
    monkeypatch.setattr(teacher_cache, "PIECE_ROWS", 40)
    context = multiprocessing.get_context("fork")

    def build(log: str) -> None:
        cached = ReadyTeacher.cached

        def counted(self, some):
            if len(some.texts) <= 40:
                with (tmp_path / log).open("a") as stream:
                    stream.write(f"{some.texts[0]}\n")
                time.sleep(0.05)
            return cached(self, some)

        ReadyTeacher.cached = counted
        ready.cached(Wanted(texts, "train", tmp_path / "pieces"))

    first = context.Process(target=build, args=("first",))
    first.start()
    pieces = tmp_path / "pieces" / "teacher_cache"

    def finished() -> list[Path]:
        return [place for folder in pieces.glob("*.pieces/*/") for place in teacher_cache.entries(folder)]

    # Killed inside the third piece, whose lock it holds: a kill between two locks could leave a lock without a name,
    # and the others would wait for the whole lease.
    deadline = time.monotonic() + 30
    log = tmp_path / "first"
    while not (log.exists() and len(log.read_text().splitlines()) > 2) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    if damage:
        flip(finished()[0] / "values.npy")
    others = [context.Process(target=build, args=(name,)) for name in ("second", "third")]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    done = [(tmp_path / name).read_text().splitlines() for name in ("second", "third")]
    # Of seven pieces, each once, and of those before the kill only the damaged one.
    assert len(done[0]) + len(done[1]) == len({*done[0], *done[1]}) <= 5 + damage
    found, seconds = ready.cached(Wanted(texts, "train", tmp_path / "pieces"))
    np.testing.assert_allclose(found["logits"], expected, atol=1e-6)
    assert seconds > 0
    (place,) = teacher_cache.entries(pieces)
    assert teacher_cache.damage(place) is None and json.loads((place / "meta.json").read_text())["split"] == "train"
    assert not list(pieces.glob("*.pieces"))


def test_features_are_made_in_pieces_too(ready, tmp_path, monkeypatch):
    texts = [text for text, _ in make_reviews(90, seed=9)]
    features = [Feature("hidden_states", 1), Feature("hidden_states", 2, "mean")]
    whole, _ = ready.cached(Wanted(texts, "train", tmp_path / "whole", features))
    monkeypatch.setattr(teacher_cache, "PIECE_ROWS", 40)
    ready.cached(Wanted(texts, "train", tmp_path / "pieces", features[:1]))
    pieces, _ = ready.cached(Wanted(texts, "train", tmp_path / "pieces", features))
    assert set(pieces) == set(whole)
    for name, column in whole.items():
        if isinstance(column, Ragged):
            np.testing.assert_array_equal(column.offsets, pieces[name].offsets)
            column, pieces[name] = column.values, pieces[name].values
        np.testing.assert_allclose(pieces[name], column, atol=2e-3)
