"""Reading a transfer set in slices, and finding its duplicates."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kd.data import slices
from kd.data.counts import Counts
from kd.data.dialect import Reading
from kd.data.slices import Source, read_slices, repeated
from kd.data.splits import text_keys
from tests.data.writing import transfer_files

SHARD_ROWS = 100


@pytest.fixture(scope="module")
def files(reviews_file, tmp_path_factory) -> list[Path]:
    return transfer_files(tmp_path_factory.mktemp("transfer"), reviews_file)


def source_of(files, **changes) -> Source:
    return replace(Source(files, "x", "text", Reading(), frozenset(), frozenset(), True, SHARD_ROWS), **changes)


def test_an_interrupted_reading_goes_on_where_it_was(files, tmp_path):
    source = source_of(files)

    def read():
        read_slices(tmp_path / "killed", source)

    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    process = multiprocessing.get_context("fork").Process(target=read)
    process.start()
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "killed").glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.json")}
    assert len(finished) >= 3
    found, counts = read_slices(tmp_path / "killed", source)
    whole, expected = read_slices(tmp_path / "whole", source)
    assert counts == expected and [path.name for path in found] == [path.name for path in whole]
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in whole]
    for name, moment in finished.items():
        assert (tmp_path / "killed" / name).stat().st_mtime_ns == moment


def test_rows_whose_text_an_earlier_row_has_are_marked(files, tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "KEYS_AT_ONCE", 300)  # nine parts of the range
    paths, _ = read_slices(tmp_path, source_of(files))
    bits, seen = repeated(paths, SHARD_ROWS), set()
    for number, path in enumerate(paths):
        texts = pa.ipc.open_file(path).read_all()["text"].to_pylist()
        marked = np.unpackbits(bits[number], count=len(texts), bitorder="little").tolist()
        for text, mark in zip(texts, marked, strict=True):
            key = text_keys(text)[0]
            assert mark == (key in seen), text
            seen.add(key)
    assert np.unpackbits(bits).sum() > 200


def test_texts_of_the_splits_are_left_out():
    key, side = text_keys("A film.")
    assert source_of([]).fate(key, side) is None
    assert source_of([], held_out=frozenset({side})).fate(key, side) == "removed_from_train"
    assert source_of([], known=frozenset({key})).fate(key, side) == "duplicates"
    assert source_of([], known=frozenset({key}), deduplicate=False).fate(key, side) is None


def test_the_key_depends_on_everything_that_affects_the_texts():
    changes = [
        *({"fingerprint": "y"}, {"column": "review"}, {"reading": Reading("latin-1")}, {"held_out": frozenset({b"a"})}),
        *({"known": frozenset({b"a"})}, {"deduplicate": False}, {"slice_rows": 7}),
    ]
    assert len({source_of([]).key, *(source_of([], **change).key for change in changes)}) == 1 + len(changes)
    assert (
        source_of([]).key == source_of([Path("elsewhere")]).key == "4f676a728ad5022ffe63"
    )  # a key must stay from version to version


def test_counts_keep_the_first_lines():
    counts, more = Counts(read=3), Counts(read=30)
    counts.add("empty", 2, ["a:1", "a:2"])
    more.add("empty", 25, [f"a:{line}" for line in range(3, 23)])
    more.add("nul", 1, ["a:30"])
    counts.merge(more)
    assert counts.read == 33 and counts.fates == {"empty": 27, "nul": 1}
    assert counts.lines == {"empty": [f"a:{line}" for line in range(1, 21)], "nul": ["a:30"]}
