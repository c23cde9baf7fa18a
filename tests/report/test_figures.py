"""The figures."""

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest

from kd.report.figures import over_seeds, pareto, validation_curve
from tests.report.written import page, words


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


def test_epochs_count_from_one_and_other_lines_are_passed_over(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,val/accuracy\n0,5,0.7,\n0,9,,0.5\n1,18,,0.75\n")
    assert validation_curve(path) == {1: 0.5, 2: 0.75}


@pytest.mark.parametrize("content", [None, "", "epoch,step\n0,1\n", "epoch,val/accuracy\n0,1,2\n"])
def test_a_file_that_cannot_be_read_has_no_curve(tmp_path, content):
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_text(content)
    assert validation_curve(path) == {}


def test_over_seeds_of_different_length(tmp_path):
    runs = []
    for seed, values in enumerate(([0.5, 0.7], [0.6])):
        (tmp_path / str(seed)).mkdir()
        lines = [f"{epoch},{value}" for epoch, value in enumerate(values)]
        (tmp_path / str(seed) / "metrics.csv").write_text("\n".join(["epoch,val/accuracy", *lines]) + "\n")
        run = SimpleNamespace(metric="accuracy", directory=SimpleNamespace(path=tmp_path / str(seed)))
        runs.append(SimpleNamespace(metric="accuracy", trainings=[run]))
    found = over_seeds(SimpleNamespace(runs=runs))
    np.testing.assert_allclose(found, [[1, 0.55, 0.5, 0.6, 2], [2, 0.7, 0.7, 0.7, 1]])
    assert over_seeds(SimpleNamespace(runs=[])).shape == (0, 5)
