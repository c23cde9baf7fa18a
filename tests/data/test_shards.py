"""Shards of a transfer set: built once, checked, and built again where they are damaged."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.data.dialect import Reading
from kd.data.shards import TextShards
from kd.data.slices import Source
from kd.data.splits import text_keys
from kd.errors import KDError
from tests.data.writing import damage, flip, write_rows

TEXTS = [f"scene {number}" for number in range(25)]
ROWS = [*TEXTS[:12], "SCENE 3", "", *TEXTS[12:]]


def texts_hash(texts) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def shards(folder: Path, file: Path, **changes) -> TextShards:
    source = Source([file], "x", "text", Reading(), frozenset(), frozenset(), True, 10)
    return TextShards(folder, replace(source, **changes), texts_hash)


def all_texts(store: TextShards) -> list[str]:
    return list(chain.from_iterable(map(store.texts, range(len(store)))))


def test_shards_hold_each_text_once_in_order(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    store = shards(tmp_path / "transfer", file)
    assert all_texts(store) == TEXTS and [shard.rows for shard in store.shards] == [10, 8, 7]
    facts = store.facts()
    assert (facts["read"], facts["rows"], facts["shards"]) == (27, 25, 3)
    assert facts["fates"] == {"empty": 1, "duplicates": 1}
    assert facts["lines"] == {"empty": ["rows.jsonl:14"], "duplicates": ["rows.jsonl:13"]}
    assert "27 rows read, 25 used, in 3 shards" in store.report() and "duplicates: 1 (rows.jsonl:13)" in store.report()
    with_duplicates = shards(tmp_path / "transfer", file, deduplicate=False)
    assert all_texts(with_duplicates) == [text for text in ROWS if text]


def test_shards_are_built_once(tmp_path, caplog):
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    caplog.set_level("INFO")
    first, again = (shards(tmp_path / "transfer", file) for _ in range(2))
    assert again.shards == first.shards and again.counts == first.counts and again.checksum == first.checksum
    assert caplog.text.count("(once)") == 1
    assert sorted(path.name for path in first.place.iterdir()) == [
        *(f"{n:06}.arrow" for n in range(3)),
        "manifest.json",
    ]


def test_a_damaged_shard_is_built_again_from_the_same_files_only(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    store = shards(tmp_path / "transfer", file)
    flip(store.place / store.shards[1].name)
    (store.place / store.shards[2].name).unlink()
    assert all_texts(store) == TEXTS
    flip(store.place / store.shards[1].name)
    write_rows(file, ["another", "text"])
    with pytest.raises(KDError, match="was built from, found others; start the run again"):
        store.texts(1)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.sampled_from(["manifest.json", "000000.arrow", "000002.arrow"]), st.integers(0, 2**32), st.booleans())
def test_any_damage_of_a_transfer_set_is_built_again(tmp_path_factory, name, seed, while_it_is_used):
    folder = tmp_path_factory.mktemp("damaged")
    file, others = write_rows(folder / "rows.jsonl", ROWS), write_rows(folder / "others.jsonl", ROWS[::-1])
    store, other = shards(folder / "transfer", file), shards(folder / "transfer", others, fingerprint="y")
    damage(store.place / name, seed, other.place / name)
    if not while_it_is_used:
        store = shards(folder / "transfer", file)
    assert all_texts(store) == TEXTS
    assert all_texts(shards(folder / "transfer", file)) == TEXTS


def test_a_transfer_set_in_the_place_of_another_is_read_again(tmp_path, caplog):
    file, others = write_rows(tmp_path / "rows.jsonl", ROWS), write_rows(tmp_path / "others.jsonl", ROWS[::-1])
    place, other = (
        shards(tmp_path / "transfer", file).place,
        shards(tmp_path / "transfer", others, fingerprint="y").place,
    )
    shutil.rmtree(place)
    other.rename(place)
    assert all_texts(shards(tmp_path / "transfer", file)) == TEXTS
    assert "is of another transfer set; the files are read again" in caplog.text


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.sampled_from(["json", "arrow", "keys.npy", "rows.npy"]), st.integers(0, 2), st.integers(0, 2**32))
def test_reading_that_was_interrupted_resumes_from_whole_slices_alone(tmp_path_factory, ending, number, seed):
    folder = tmp_path_factory.mktemp("interrupted")
    file = write_rows(folder / "rows.jsonl", ROWS)
    with mock.patch("kd.data.shards.repeated", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        shards(folder / "transfer", file)
    (slices,) = (folder / "transfer").glob("*/slices")
    damage(slices / f"{number:06}.{ending}", seed, slices / f"{(number + 1) % 3:06}.{ending}")
    assert all_texts(store := shards(folder / "transfer", file)) == TEXTS
    assert store.counts.fates == {"empty": 1, "duplicates": 1} and store.counts.read == 27


def test_files_without_a_new_text_are_refused(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", ["A film!", ""])
    with pytest.raises(KDError, match=r"found none among 2 rows .*rows.jsonl \(1 removed_from_train, 1 empty\)"):
        shards(tmp_path / "transfer", file, held_out=frozenset({text_keys("a film")[1]}))


PEAKS = """
import sys
from pathlib import Path
from kd.data.dialect import Reading
from kd.data.shards import TextShards
from kd.data.slices import Source
from kd.data.sources import from_files
from kd.teacher.cache import texts_hash

def print_peak(rows):
    lines = Path("/proc/self/status").read_text().splitlines()
    print(rows, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024)

folder, few, many, reviews = map(Path, sys.argv[1:])
for path in (few, many):
    source = Source([path], path.name, "text", Reading(), frozenset(), frozenset(), True, 8192)
    print_peak(TextShards(folder, source, texts_hash).rows)
print_peak(from_files(str(reviews), unlabelled=str(many), label_names=["negative", "positive"]).counts["unlabelled"])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no peak of memory")
def test_reading_takes_memory_for_a_slice_and_not_for_the_rows(reviews_file, tmp_path):
    """Four times the rows take hardly more where they are streamed, and far more where they are not."""
    sizes = [20_000, 80_000]
    files = [
        write_rows(tmp_path / f"{rows}.parquet", [f"scene {number} of a film, {number:0200}" for number in range(rows)])
        for rows in sizes
    ]
    command = [sys.executable, "-c", PEAKS, *map(str, (tmp_path, *files, reviews_file))]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[2])
    rows, (few, many, in_memory) = zip(*(map(int, line.split()) for line in said.stdout.splitlines()), strict=True)
    assert rows == (*sizes, sizes[1])
    assert many - few < 15  # MiB at the peak, mapped files included
    assert in_memory - many > 30
