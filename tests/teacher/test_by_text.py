"""A teacher's logits by text: each text is labelled once, whatever set it comes in."""

import errno
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.errors import KDError
from kd.features.feature import Feature
from kd.storage import checksum
from kd.teacher import by_text, ready
from kd.teacher.by_text import TextStore, hashes, shards
from kd.teacher.cache import CacheKey
from kd.teacher.ready import ReadyTeacher, Wanted
from tests.conftest import make_reviews
from tests.data.writing import flip

KEY = CacheKey("teacher", "tokenizer", 8, "logits", "of some texts")
TEXTS = [text for text, _ in make_reviews(160, seed=5)]


@pytest.fixture
def store(tmp_path) -> TextStore:
    return TextStore(tmp_path / "teacher_cache", KEY, 2, "tiny")


@pytest.fixture
def teacher(teacher_folder) -> ReadyTeacher:
    return ReadyTeacher("tiny", teacher_folder, 24, 32, {})


@pytest.fixture
def labelled(monkeypatch) -> list[int]:
    """How many rows each pass of the model had."""
    counts, batches = [], ReadyTeacher._batches

    def counted(self, tokens, title):
        counts.append(len(tokens))
        yield from batches(self, tokens, title)

    monkeypatch.setattr(ReadyTeacher, "_batches", counted)
    return counts


def left_after(teacher: ReadyTeacher, batches: int) -> int:
    """Return how many of the texts are not in the first batches."""
    stored = ready.tight_batches(teacher.tokens(TEXTS).lengths, teacher.batch_size)[:batches]
    return len(TEXTS) - sum(map(len, stored))


def add(store: TextStore, texts: list[str], value: float = 1.0) -> None:
    store.add(hashes(texts), np.full((len(texts), 2), value, np.float32), np.full(len(texts), 0.5))


def found(store: TextStore, texts: list[str]) -> list[float]:
    return store.find(hashes(texts))[0][:, 0].tolist()


def test_only_new_texts_of_another_set_go_through_the_model(teacher, tmp_path, labelled):
    """100 texts, then 150 that contain them in another order, then some of these, and a text that comes twice."""
    first, _ = teacher.cached(Wanted(TEXTS[:100], "train", tmp_path))
    order = np.random.default_rng(0).permutation(150)
    mixed = [TEXTS[row] for row in order]
    second, seconds = teacher.cached(Wanted(mixed, "train", tmp_path))
    assert labelled == [100, 50] and seconds > 0
    at = {text: row for row, text in enumerate(mixed)}
    np.testing.assert_array_equal([second["logits"][at[text]] for text in TEXTS[:100]], first["logits"])
    np.testing.assert_allclose(second["logits"], teacher.live_logits(mixed), atol=1e-6)
    labelled.clear()
    third, seconds = teacher.cached(Wanted(TEXTS[30:130], "other", tmp_path))
    assert labelled == [] and seconds > 0, "what labelling these texts took, though nothing was labelled now"
    np.testing.assert_array_equal(third["logits"][0], first["logits"][30])
    twice, _ = teacher.cached(Wanted([TEXTS[155], TEXTS[0], TEXTS[155]], "test", tmp_path))
    assert labelled == [1]
    np.testing.assert_array_equal(twice["logits"][0], twice["logits"][2])


def test_pieces_and_columns_with_features_use_the_same_logits(teacher, tmp_path, labelled, monkeypatch):
    first, _ = teacher.cached(Wanted(TEXTS[:60], "train", tmp_path))
    second, _ = teacher.cached(Wanted(TEXTS[:90], "train", tmp_path, [Feature("hidden_states", 1, "mean")]))
    np.testing.assert_array_equal(second["logits"][:60], first["logits"])
    assert labelled == [60, 90], "features need every row"
    monkeypatch.setattr("kd.teacher.cache.PIECE_ROWS", 40)
    third, _ = teacher.cached(Wanted(TEXTS[:120], "train", tmp_path))
    assert labelled == [60, 90, 30]
    np.testing.assert_array_equal(third["logits"][:90], second["logits"])
    monkeypatch.setattr(ReadyTeacher, "model", None)
    other, _ = teacher.cached(Wanted(TEXTS[5:15], "shard", tmp_path / "transfer" / "x", shared=tmp_path))
    np.testing.assert_array_equal(other["logits"], first["logits"][5:15])


def test_another_teacher_or_length_has_logits_of_its_own(store):
    add(store, ["a"])
    for change in ({"teacher": "other"}, {"tokenizer": "other"}, {"max_length": 9}):
        assert TextStore(store.folder, CacheKey(**{**vars(KEY), **change}), 2, "tiny").place != store.place
    assert TextStore(store.folder, CacheKey(**{**vars(KEY), "texts": "other"}), 2, "tiny").place == store.place


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(st.text(max_size=3), unique=True, max_size=6), max_size=6))
def test_the_first_value_of_a_text_stays(tmp_path_factory, sets):
    store, first = TextStore(tmp_path_factory.mktemp("cache"), KEY, 2, "tiny"), {}
    for number, texts in enumerate(sets):
        add(store, texts, float(number))
        first |= {text: float(number) for text in texts if text not in first}
    assert found(store, list(first)) == list(first.values())
    assert np.isnan(found(store, ["four", "\ud800"])).all()
    assert by_text.size(store.place) == (len(first), 0.5 * len(first)) or not first


def test_a_shard_is_hashed_once_a_process_and_new_shards_are_seen(store, monkeypatch):
    add(store, ["a", "b"])
    hashed, digest = [], checksum.hashlib.file_digest
    monkeypatch.setattr(checksum.hashlib, "file_digest", lambda *given: hashed.append(given) or digest(*given))
    for _ in range(3):
        assert found(store, ["b", "a", "b"]) == [1.0] * 3
    assert len(hashed) == 1
    add(TextStore(store.folder, KEY, 2, "tiny"), ["c"], 2.0)
    assert found(store, ["c", "a"]) == [2.0, 1.0] and len(hashed) == 2


def test_many_small_shards_are_merged(store, monkeypatch):
    monkeypatch.setattr(by_text, "MOST_SMALL", 4)
    for number in range(13):
        add(store, [f"text {number}"], float(number))
        assert len(shards(store.place)) <= 5
    assert found(store, [f"text {number}" for number in range(13)]) == [float(number) for number in range(13)]
    assert by_text.damage(store.place) is None


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_shard_is_dropped_and_its_texts_alone_are_labelled_again(teacher, tmp_path, labelled, harm, caplog):
    first, _ = teacher.cached(Wanted(TEXTS[:40], "a", tmp_path))
    before = set(tmp_path.glob("teacher_cache/*.texts/*.npy"))
    teacher.cached(Wanted(TEXTS[40:60], "b", tmp_path))
    (shard,) = set(tmp_path.glob("teacher_cache/*.texts/*.npy")) - before
    content = shard.read_bytes()
    match harm:
        case "flip":
            flip(shard)
        case "cut":
            shard.write_bytes(content[:-7])
        case "empty":
            shard.write_bytes(b"")
        case "foreign":  # intact, but not of this teacher
            shard.unlink()
            np.save(tmp_path / "x.npy", np.zeros(3))
            (tmp_path / "x.npy").rename(shard.with_name(f"{by_text.file_sha256(tmp_path / 'x.npy')}.npy"))
    labelled.clear()
    again, _ = teacher.cached(Wanted(TEXTS[:60], "c", tmp_path))
    assert labelled == [20] and "is damaged; it is removed, and its texts are labelled again" in caplog.text
    np.testing.assert_array_equal(again["logits"][:40], first["logits"])
    assert all(by_text.damage(place) is None for place in by_text.stores(tmp_path / "teacher_cache"))


def test_a_damaged_description_is_written_again(store):
    add(store, ["a"])
    (store.place / "store.json").write_text("{")
    assert "store.json cannot be read" in by_text.damage(store.place) and found(store, ["a"]) == [1.0]
    add(store, ["b"])
    assert by_text.damage(store.place) is None


def test_a_full_disk_keeps_what_was_labelled_before(teacher, tmp_path, labelled, monkeypatch):
    monkeypatch.setattr(ready, "KEEP_EVERY", 0.0)
    write, written = Path.write_bytes, []

    def full(self, content):
        if self.parent.suffix == ".texts" and "json" not in self.name:
            written.append(self)
            if len(written) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        teacher.cached(Wanted(TEXTS, "train", tmp_path))
    monkeypatch.setattr(Path, "write_bytes", write)
    labelled.clear()
    teacher.cached(Wanted(TEXTS, "train", tmp_path))
    assert labelled == [left_after(teacher, 2)]


def test_a_killed_process_loses_only_what_it_had_not_stored(teacher, tmp_path, labelled, monkeypatch):
    monkeypatch.setattr(ready, "KEEP_EVERY", 0.0)
    batches = ReadyTeacher._batches

    def slow(self, tokens, title):
        for number, batch in enumerate(batches(self, tokens, title)):
            if number == 3:
                (tmp_path / "reached").touch()
                time.sleep(30)
            yield batch

    def label() -> None:
        ReadyTeacher._batches = slow
        teacher.cached(Wanted(TEXTS, "train", tmp_path))

    process = multiprocessing.get_context("fork").Process(target=label)
    process.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "reached").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    labelled.clear()
    result, _ = teacher.cached(Wanted(TEXTS, "train", tmp_path))
    assert labelled == [left_after(teacher, 3)]
    np.testing.assert_allclose(result["logits"], teacher.live_logits(TEXTS), atol=1e-6)


def test_several_processes_add_at_once(store):
    def work(number: int) -> None:
        for step in range(8):
            add(store, [f"{number} {step}", f"common {step}"], float(number))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    for number in range(4):
        assert found(store, [f"{number} {step}" for step in range(8)]) == [float(number)] * 8
    rows = Counter(text for path in shards(store.place) for text in np.load(path)["text"].tolist())
    assert len(rows) == 40 and set(rows.values()) == {1}


def test_logits_that_are_not_finite_are_not_stored(store, teacher, tmp_path, monkeypatch):
    store.add(hashes(["a", "b"]), np.array([[np.inf, 0], [1, 2]], np.float32), np.zeros(2))
    assert np.isnan(found(store, ["a"])).all() and found(store, ["b"]) == [1.0]
    teacher.model.classifier.bias.data[0] = np.nan
    with pytest.raises(KDError, match=r"the teacher's logits are not finite for rows \[0, 1"):
        teacher.cached(Wanted(TEXTS[:4], "train", tmp_path))
