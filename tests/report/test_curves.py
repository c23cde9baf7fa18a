from types import SimpleNamespace

import numpy as np
import pytest

from kd.report.curves import over_seeds, validation_curve


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
        runs.append(SimpleNamespace(directory=SimpleNamespace(path=tmp_path / str(seed))))
    found = over_seeds(SimpleNamespace(runs=runs))
    np.testing.assert_allclose(found, [[1, 0.55, 0.5, 0.6, 2], [2, 0.7, 0.7, 0.7, 1]])
    assert over_seeds(SimpleNamespace(runs=[])).shape == (0, 5)
