"""The predictions of a finished run."""

import random
import time
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kd.errors import KDError
from kd.run import predictions
from kd.run.directory import RunDirectory

ENVIRONMENT = {"data": {"label_names": ["bad", "good"]}}


def written(folder, labels=(0, 1, 1), width=2, split="test", **columns) -> RunDirectory:
    run = RunDirectory(folder)
    table = {"split": [split] * len(labels), "label": list(labels), "logits": [[0.5] * width for _ in labels]}
    pyarrow.parquet.write_table(pyarrow.table(table | columns), run.predictions_file)
    return run


def read(run: RunDirectory, rows: int = 3):
    return predictions.of_run(run, {"test": {"rows": rows}, "validation": {"rows": 0}}, ENVIRONMENT, {})


def test_equal_arrays_are_kept_once(tmp_path):
    shared: dict = {}
    run = written(tmp_path, teacher_logits=[[1.0, 2.0]] * 3)
    one, two = (predictions.of_run(run, {}, {}, shared)["test"] for _ in range(2))
    assert one.labels is two.labels and one.teacher.logits is two.teacher.logits
    assert one.predicted.tolist() == [0, 0, 0] and one.correct.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": (0, 1, 2)}, "expected labels from 0 to 1"),
        ({"labels": (0, -1, 1)}, "expected labels from 0 to 1"),
        ({"labels": (0, 1)}, "expected 3 test rows"),
        ({"labels": (0, 1, 1, 0)}, "expected at most 3 rows in"),
        ({"width": 3}, "expected rows of at most 2 logits"),
        ({"width": 1}, "expected rows of equally many logits"),
        ({"logits": [[0.5, 1], [1, 2], [0.1]]}, "is damaged"),
        ({"logits": [[0.5, 1], [1, 2], [0.1, float("nan")]]}, "expected finite logits"),
        ({"logits": [[0.5, 1], None, [0.1, 2]]}, "test"),
        ({"logits": ["a", "b", "c"]}, "is damaged"),
        ({"label": ["a", "b", "c"]}, "expected labels"),
        ({"split": "validation"}, "expected test rows"),
    ],
)
def test_contradictions_are_refused(tmp_path, changes, said):
    with pytest.raises(KDError, match=said):
        read(written(tmp_path, **changes))


def test_a_small_file_of_many_rows_is_not_read(tmp_path):
    rows = 4_000_000
    zeros = pyarrow.array(np.zeros(rows, np.int8))
    logits = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.zeros(2 * rows, np.float32)), 2)
    table = pyarrow.table({"split": zeros.cast(pyarrow.string()), "label": zeros, "logits": logits})
    pyarrow.parquet.write_table(table, RunDirectory(tmp_path).predictions_file)
    started = time.perf_counter()
    with pytest.raises(KDError, match="found 4000000"):
        read(RunDirectory(tmp_path))
    assert time.perf_counter() - started < 5, "it has not been read"


def test_changed_bytes_are_answered(tmp_path):
    """A damaged size in the metadata of a column would end the process."""
    content = written(tmp_path, labels=[0, 1] * 20).predictions_file.read_bytes()
    answers = Counter()
    for seed in range(300):
        draw, changed = random.Random(seed), bytearray(content)
        for _ in range(draw.choice((1, 2, 4))):
            changed[draw.randrange(len(changed))] = draw.choice((0, 127, 128, 255))
        RunDirectory(tmp_path).predictions_file.write_bytes(changed)
        try:
            read(RunDirectory(tmp_path), rows=40)
            answers["read"] += 1
        except KDError:
            answers["refused"] += 1
    assert answers["refused"] > 100


def test_a_file_that_is_no_parquet_is_damaged(tmp_path):
    RunDirectory(tmp_path).predictions_file.write_bytes(b"PAR1 nothing")
    with pytest.raises(KDError, match="is damaged"):
        read(RunDirectory(tmp_path))
