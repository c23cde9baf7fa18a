"""Times in turns, of forms whose time is known: a clock that only they move, so that no other load matters."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kd.benchmark import timing
from kd.benchmark.forms import Form
from kd.measure import cost


@pytest.fixture
def form(monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(cost, "time", clock)

    def made(seconds: float) -> Form:
        def run(ids, mask):
            now[0] += seconds
            return np.zeros((len(ids), 2))

        return Form("sleeper", "eager", lambda texts: [[1, 2]] * len(texts), run, 0, 0, Path(), [0, 1])

    return made


def test_a_form_that_takes_ten_times_as_long_is_ten_times_as_slow(form):
    slow, fast = timing.latencies([form(0.02), form(0.002)], ["a", "b"], turns=8, seconds=10)
    assert slow.shape == fast.shape == (8, 2)
    found = timing.summary(fast, slow)
    for name, value in {"ratio": 10, "low": 10, "high": 10, "model_ms": 2, "p50_ms": 2, "p99_ms": 2}.items():
        assert found[name] == pytest.approx(value)
    assert timing.summary(slow, slow)["ratio"] == 1 and found["turns"] == 8


def test_it_ends_when_the_time_is_over_but_not_before_some_turns(form):
    (times,) = timing.latencies([form(0.001)], ["a"], turns=1000, seconds=0)
    assert len(times) == cost.LEAST_TURNS


def test_rows_a_second(form):
    (rate,) = timing.throughputs([form(0.01)], ["a", "b"], batch=32)
    assert rate == pytest.approx(3200)
