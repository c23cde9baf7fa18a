"""The figures."""

import csv
import re

import numpy as np

from kd.report.figures import pareto
from tests.report.written import (
    page,
    words,
)


def test_the_heat_map_shows_small_differences_as_small(runs):
    """Settings that share the best accuracy are all framed; the colours span two points at least."""
    logits = runs.answers(0.75)
    sharper = {name: 2 * values for name, values in logits.items()}
    worse = {name: values.copy() for name, values in logits.items()}
    right = next(iter(np.flatnonzero(logits["validation"].argmax(1) == runs.labels["validation"])))
    worse["validation"][right] = worse["validation"][right][::-1]
    for temperature, answered in enumerate((logits, sharper, worse), start=1):
        runs.write(str(temperature), "distillation", logits=answered, temperature=temperature)
    text = words(page(runs.folder))
    assert "1 setting more (dashed) has the same accuracy" in text and "span at least 2 points" in text
    with (runs.folder / "report" / "figures" / "heat-map-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    (chosen,) = [row["temperature"] for row in rows if row["best"] == "True"]
    assert f"validation chose distillation temperature={chosen[0]}" in text, "by the same rule"
    svg = (runs.folder / "report" / "figures" / "heat-map-1.svg").read_text()
    depths = sorted({float(found) for found in re.findall(r"opacity: (0\.\d+)", svg)})
    assert depths[-1] - depths[0] < 0.2


def test_pareto_by_hand():
    generator = np.random.default_rng(6)
    points = [tuple(map(float, point)) for point in generator.integers(0, 6, size=(25, 2))]
    beaten = {
        place
        for place, (cost, right) in enumerate(points)
        if any((c <= cost and r > right) or (c < cost and r >= right) for c, r in points)
    }
    assert pareto(points) == set(range(25)) - beaten
