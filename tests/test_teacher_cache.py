import dataclasses
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from kd import teacher_cache
from kd.errors import KDError
from kd.teacher_cache import CacheKey

KEY = CacheKey(teacher="t", tokenizer="p", max_length=64, column="logits", texts="x")
LENGTHS = np.array([3, 1, 4, 1, 5, 2, 2, 6, 0, 3])
LOGITS = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)


def compute(missing=("logits",), order=(3, 1, 2, 0, 4, 5, 6, 7, 8, 9), log: Path | None = None, pause: float = 0.0):
    if log:
        with log.open("a") as file:
            file.write("computed\n")
    for start in range(0, 10, 4):
        rows = np.array(order[start : start + 4])
        time.sleep(pause)
        yield rows, {"logits": LOGITS[rows]}


def test_rows_are_addressed_by_index_and_read_back(tmp_path):
    first = teacher_cache.obtain(tmp_path, [KEY], LENGTHS, compute)
    again = teacher_cache.obtain(tmp_path, [KEY], LENGTHS, lambda missing: pytest.fail("the cache was not used"))
    np.testing.assert_array_equal(first["logits"], LOGITS)
    np.testing.assert_array_equal(again["logits"], LOGITS)
    assert isinstance(again["logits"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        again["logits"][0] = 0


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "u"},
        {"tokenizer": "q"},
        {"max_length": 32},
        {"texts": "y"},
        {"column": "hidden_states-1-mean"},
    ],
)
def test_whatever_decides_the_outputs_changes_the_key(change):
    assert dataclasses.replace(KEY, **change).digest != KEY.digest


def test_texts_hash_tells_lists_apart():
    texts = ["a b", "c"]
    assert teacher_cache.texts_hash(texts) == teacher_cache.texts_hash(iter(texts))
    for other in (["a", "b c"], ["c", "a b"], ["a b"], ["a b", "c", ""]):
        assert teacher_cache.texts_hash(texts) != teacher_cache.texts_hash(other)


def flip_a_byte(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", ["flip", "cut", "missing", "no meta"])
def test_a_damaged_cache_is_noticed_and_built_anew(tmp_path, harm, caplog):
    teacher_cache.obtain(tmp_path, [KEY], LENGTHS, compute)
    place = tmp_path / KEY.digest
    file = place / "values.npy"
    match harm:
        case "flip":
            flip_a_byte(file)
        case "cut":
            file.write_bytes(file.read_bytes()[:-8])
        case "missing":
            file.unlink()
        case "no meta":
            (place / "meta.json").write_text("{")
    assert teacher_cache.damage(place)
    np.testing.assert_array_equal(teacher_cache.obtain(tmp_path, [KEY], LENGTHS, compute)["logits"], LOGITS)
    assert "damaged" in caplog.text
    assert teacher_cache.damage(place) is None


def test_nothing_half_built_stays(tmp_path):
    def broken(missing):
        yield np.arange(4), {"logits": LOGITS[:4]}
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        teacher_cache.obtain(tmp_path, [KEY], LENGTHS, broken)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    (tmp_path / f"{KEY.digest}.building-1").mkdir()
    teacher_cache.obtain(tmp_path, [KEY], LENGTHS, compute)
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY.digest, f"{KEY.digest}.lock"]


def test_missing_rows_and_nan_are_refused(tmp_path):
    with pytest.raises(KDError, match="answered 4 of 10 rows"):
        teacher_cache.obtain(tmp_path, [KEY], LENGTHS, lambda missing: [(np.arange(4), {"logits": LOGITS[:4]})])
    bad = LOGITS.copy()
    bad[7, 1] = np.nan
    with pytest.raises(KDError, match=r"not finite for rows \[7\]"):
        teacher_cache.obtain(tmp_path, [KEY], LENGTHS, lambda missing: [(np.arange(10), {"logits": bad})])


def _obtain(folder: Path) -> None:
    found = teacher_cache.obtain(folder, [KEY], LENGTHS, lambda missing: compute(log=folder / "log", pause=0.1))
    np.testing.assert_array_equal(found["logits"], LOGITS)


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_obtain, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "log").read_text() == "computed\n"


def test_entries_and_removal(tmp_path):
    teacher_cache.obtain(tmp_path, [KEY], LENGTHS, compute)
    assert teacher_cache.entries(tmp_path) == [tmp_path / KEY.digest]
    teacher_cache.remove(tmp_path / KEY.digest)
    assert list(tmp_path.iterdir()) == []
