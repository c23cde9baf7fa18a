"""Teacher outputs on disk: computed once, checked when they are read, and rebuilt where they are damaged."""

import dataclasses
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.errors import KDError
from kd.teacher import cache as teacher_cache
from kd.teacher.cache import CacheKey
from tests.data.writing import damage

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
    first = teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, compute)
    again = teacher_cache.obtain(
        tmp_path, [KEY], lambda: pytest.fail("for nothing"), lambda missing: pytest.fail("not used")
    )
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


def test_different_lists_of_texts_have_different_hashes():
    texts = ["a b", "c"]
    assert teacher_cache.texts_hash(texts) == teacher_cache.texts_hash(iter(texts))
    for other in (["a", "b c"], ["c", "a b"], ["a b"], ["a b", "c", ""]):
        assert teacher_cache.texts_hash(texts) != teacher_cache.texts_hash(other)


def flip_a_byte(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", ["flip", "cut", "missing", "no meta"])
def test_a_damaged_cache_is_noticed_and_rebuilt(tmp_path, harm, caplog):
    teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, compute)
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
    np.testing.assert_array_equal(teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, compute)["logits"], LOGITS)
    assert "damaged" in caplog.text
    assert teacher_cache.damage(place) is None


def vectors(missing):
    for row, length in enumerate(LENGTHS):
        yield np.array([row]), {"hidden_states-1": np.full((1, length, 2), row, np.float32)}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.sampled_from(["meta.json", "values.npy", "offsets.npy"]), st.integers(0, 2**32), st.booleans())
def test_any_damage_of_a_cache_is_noticed_and_it_is_built_again(tmp_path_factory, name, seed, by_token):
    folder = tmp_path_factory.mktemp("damaged")
    key = dataclasses.replace(KEY, column="hidden_states-1") if by_token else KEY
    another, make = dataclasses.replace(key, texts="y"), vectors if by_token else compute

    def read(one: CacheKey, outputs) -> np.ndarray:
        found = teacher_cache.obtain(folder, [one], lambda: LENGTHS, outputs)[one.column]
        return np.concatenate([part.ravel() for part in found]) if isinstance(found, tuple) else np.array(found)

    right, _ = read(key, make), read(another, lambda missing: list(make())[::-1] if not by_token else make(missing))
    path = folder / key.digest / name
    if not path.exists():  # a file that does not belong there
        np.save(path, np.arange(11))
    else:
        damage(path, seed, folder / another.digest / name)
    np.testing.assert_array_equal(read(key, make), right)
    assert teacher_cache.damage(folder / key.digest) is None


def test_a_cache_in_the_place_of_another_is_built_again(tmp_path, caplog):
    another = dataclasses.replace(KEY, texts="y")
    teacher_cache.obtain(tmp_path, [another], lambda: LENGTHS, lambda _: [(np.arange(10), {"logits": LOGITS + 1})])
    (tmp_path / another.digest).rename(tmp_path / KEY.digest)
    np.testing.assert_array_equal(teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, compute)["logits"], LOGITS)
    assert "is damaged (meta.json is of another cache): it is built again" in caplog.text


def test_nothing_half_built_stays(tmp_path):
    def broken(missing):
        yield np.arange(4), {"logits": LOGITS[:4]}
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, broken)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    (tmp_path / f"{KEY.digest}.building-1").mkdir()
    teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, compute)
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY.digest]


def test_missing_rows_and_nan_are_refused(tmp_path):
    with pytest.raises(KDError, match="expected teacher outputs for 10 rows, got 4"):
        teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, lambda missing: [(np.arange(4), {"logits": LOGITS[:4]})])
    bad = LOGITS.copy()
    bad[7, 1] = np.nan
    with pytest.raises(KDError, match=r"not finite for rows \[7\]"):
        teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, lambda missing: [(np.arange(10), {"logits": bad})])


def _obtain(folder: Path) -> None:
    found = teacher_cache.obtain(folder, [KEY], lambda: LENGTHS, lambda missing: compute(log=folder / "log", pause=0.1))
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
    teacher_cache.obtain(tmp_path, [KEY], lambda: LENGTHS, compute)
    assert teacher_cache.entries(tmp_path) == [tmp_path / KEY.digest]
    teacher_cache.remove(tmp_path / KEY.digest)
    assert list(tmp_path.iterdir()) == []


# Several columns at once.

OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
COLUMNS = {
    "logits": LOGITS,
    "mean": np.random.default_rng(1).normal(size=(10, 3)).astype(np.float16),
    "tokens": np.random.default_rng(2).normal(size=(OFFSETS[-1], 3)).astype(np.float16),
}
KEYS = {name: dataclasses.replace(KEY, column=name) for name in COLUMNS}


def token_vectors(rows: np.ndarray, width: int, filling: float) -> np.ndarray:
    """``[B, width, 3]``, with the filling after the last token of each row."""
    padded = np.full((len(rows), width, 3), filling, np.float16)
    for place, row in enumerate(rows):
        padded[place, : LENGTHS[row]] = COLUMNS["tokens"][OFFSETS[row] : OFFSETS[row + 1]]
    return padded


class Labeller:
    """Computes columns and records their names."""

    def __init__(self, order=range(10), size=4, extra=0, filling=np.nan):
        self.order, self.size, self.extra, self.filling = np.array(order), size, extra, filling
        self.computed: list[list[str]] = []

    def __call__(self, missing):
        self.computed.append(list(missing))
        for start in range(0, 10, self.size):
            rows = self.order[start : start + self.size]
            values = {name: COLUMNS[name][rows] for name in ("logits", "mean")}
            values["tokens"] = token_vectors(rows, LENGTHS[rows].max() + self.extra, self.filling)
            yield rows, {name: values[name] for name in missing}


def obtained(folder: Path, names, compute) -> dict:
    return teacher_cache.obtain(folder, [KEYS[name] for name in names], lambda: LENGTHS, compute)


def stamp(name: str, folder: Path) -> tuple[int, int]:
    """Return what changes when a column is written again."""
    state = (folder / KEYS[name].digest / "values.npy").stat()
    return state.st_ino, state.st_mtime_ns


def assert_right(found: dict) -> None:
    for name, column in found.items():
        values = column[0] if name == "tokens" else column
        np.testing.assert_array_equal(values, COLUMNS[name])
    if "tokens" in found:
        np.testing.assert_array_equal(found["tokens"][1], OFFSETS)


def test_only_the_missing_columns_are_computed_in_one_pass(tmp_path):
    labeller = Labeller()
    obtained(tmp_path, ["logits"], labeller)
    before = stamp("logits", tmp_path)
    assert_right(obtained(tmp_path, ["logits", "mean", "tokens"], labeller))
    assert_right(obtained(tmp_path, ["tokens", "logits"], labeller))
    assert_right(obtained(tmp_path, ["logits"], labeller))
    assert labeller.computed == [["logits"], ["mean", "tokens"]]
    assert stamp("logits", tmp_path) == before
    assert len(teacher_cache.entries(tmp_path)) == 3
    assert teacher_cache.absent(tmp_path, [*KEYS.values(), dataclasses.replace(KEY, column="keys")]) == ["keys"]


@pytest.mark.parametrize("filling", [np.nan, np.inf, 7.0])
@pytest.mark.parametrize(("seed", "size", "extra"), [(0, 3, 0), (1, 4, 5), (2, 10, 1)])
def test_token_columns_are_right_for_any_batches_and_padding(tmp_path, seed, size, extra, filling):
    order = np.random.default_rng(seed).permutation(10)
    obtained(tmp_path, ["tokens"], Labeller(order, size, extra, filling))
    found = obtained(tmp_path, ["tokens"], lambda missing: pytest.fail("the cache was not used"))
    assert_right(found)
    values, offsets = found["tokens"]
    assert isinstance(values, np.memmap) and values.dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 0
    assert offsets[9] == offsets[8], "a row without tokens takes no room"


@pytest.mark.parametrize("file", ["values.npy", "offsets.npy"])
def test_of_two_caches_only_the_damaged_one_is_rebuilt(tmp_path, file, caplog):
    labeller = Labeller()
    obtained(tmp_path, ["mean", "tokens"], labeller)
    flip_a_byte(tmp_path / KEYS["tokens"].digest / file)
    whole = stamp("mean", tmp_path)
    assert_right(obtained(tmp_path, ["mean", "tokens"], labeller))
    assert labeller.computed == [["mean", "tokens"], ["tokens"]]
    assert stamp("mean", tmp_path) == whole
    assert f"{file} does not match its checksum" in caplog.text


@pytest.mark.parametrize(("name", "row"), [("mean", 6), ("tokens", 6), ("tokens", 2)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_at_real_positions(tmp_path, name, row, bad, monkeypatch):
    harmed = COLUMNS[name].copy()
    harmed[OFFSETS[row + 1] - 1 if name == "tokens" else row, 1] = bad
    monkeypatch.setitem(COLUMNS, name, harmed)
    with pytest.raises(KDError, match=rf"the teacher's {name} are not finite for rows \[{row}\] in float16; check"):
        obtained(tmp_path, ["logits", "mean", "tokens"], Labeller())
    assert teacher_cache.entries(tmp_path) == [] and not list(tmp_path.glob("*.building-*"))


def _obtain_some(folder: Path, names: list[str]) -> None:
    def compute(missing):
        with (folder / "log").open("a") as file:
            file.write("".join(f"{name}\n" for name in missing))
        for step in Labeller()(missing):
            time.sleep(0.03)
            yield step

    assert_right(obtained(folder, names, compute))


def test_processes_with_overlapping_columns_neither_wait_forever_nor_compute_twice(tmp_path):
    context = multiprocessing.get_context("fork")
    wanted = [["logits", "mean"], ["mean", "tokens"], ["tokens", "logits"], ["tokens", "mean", "logits"]]
    processes = [context.Process(target=_obtain_some, args=(tmp_path, names), daemon=True) for names in wanted]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 20
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted((tmp_path / "log").read_text().split()) == ["logits", "mean", "tokens"]


# Pieces


def test_pieces_are_joined_into_one_cache(tmp_path):
    """Five rows, three and two; as long as a piece is damaged or missing, nothing is joined."""
    names, borders = ["mean", "tokens"], [(0, 5), (5, 8), (8, 10)]
    parts = [[dataclasses.replace(KEYS[name], texts=str(piece)) for name in names] for piece in range(3)]

    def build(piece: int) -> None:
        rows = np.arange(*borders[piece])
        values = {"mean": COLUMNS["mean"][rows], "tokens": token_vectors(rows, 6, 0.0)}
        compute = lambda missing: [(rows - rows[0], {name: values[name] for name in missing})]  # noqa: E731
        teacher_cache.obtain(tmp_path / "pieces", parts[piece], lambda: LENGTHS[rows], compute, {"split": "piece"})

    def join() -> bool:
        whole = [KEYS[name] for name in names]
        return teacher_cache.join(tmp_path, whole, tmp_path / "pieces", parts, {"split": "train"})

    build(0)
    build(2)
    assert not join()
    build(1)
    damaged = tmp_path / "pieces" / parts[1][1].digest
    flip_a_byte(damaged / "values.npy")
    assert not join() and not damaged.exists()
    build(1)
    assert join()
    assert_right(obtained(tmp_path, names, lambda missing: pytest.fail("the pieces were not used")))
    meta = json.loads((tmp_path / KEYS["mean"].digest / "meta.json").read_text())
    assert meta["rows"] == 10 and meta["split"] == "train" and meta["shape"] == [10, 3]
