"""Times in turns, with forms whose time is known."""

import time

import numpy as np

from kd.benchmark import timing
from kd.benchmark.forms import Form


def form(seconds: float) -> Form:
    def run(ids, mask):
        time.sleep(seconds)
        return np.zeros((len(ids), 2))

    return Form("sleeper", "eager", lambda texts: [[1, 2]] * len(texts), run, 0, 0, [0, 1])


def test_a_form_that_takes_ten_times_as_long_is_ten_times_as_slow():
    slow, fast = timing.latencies([form(0.02), form(0.002)], ["a", "b"], turns=8, seconds=10)
    assert slow.shape == fast.shape == (8, 2)
    found = timing.summary(fast, slow)
    assert 4 < found["ratio"] < 11 and found["low"] <= found["ratio"] <= found["high"] and found["turns"] == 8
    assert 2 <= found["model_ms"] <= found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert timing.summary(slow, slow)["ratio"] == 1


def test_it_ends_when_the_time_is_over_but_not_before_some_turns():
    (times,) = timing.latencies([form(0.001)], ["a"], turns=1000, seconds=0)
    assert len(times) == timing.LEAST_TURNS


def test_rows_a_second():
    (rate,) = timing.throughputs([form(0.01)], ["a", "b"], batch=32)
    assert 500 < rate < 3200
